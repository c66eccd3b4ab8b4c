{{ config(unique_key='date_key', touched_by={}) }}

with days as (

    select generate_series(date '2020-01-01', date '2035-12-31', interval '1 day')::date as date_day

),

members as (

    select date_day from days
    union all
    -- not yet, or not known
    select null

),

final as (

    select
        -- keys
        {{ date_key('date_day') }} as date_key,

        -- attributes
        date_day,
        extract(year from date_day)::integer as year_number,
        extract(quarter from date_day)::integer as quarter_number,
        extract(month from date_day)::integer as month_number,
        to_char(date_day, 'FMMonth') as month_name,
        to_char(date_day, 'YYYY-MM') as year_month,
        extract(isoyear from date_day)::integer as iso_year_number,
        extract(week from date_day)::integer as iso_week_number,
        extract(day from date_day)::integer as day_of_month_number,
        extract(doy from date_day)::integer as day_of_year_number,
        extract(isodow from date_day)::integer as day_of_week_number,
        to_char(date_day, 'FMDay') as day_name,
        coalesce(extract(isodow from date_day) in (6, 7), false) as is_weekend,
        date_day is null as is_unknown

    from members

)

select * from final
