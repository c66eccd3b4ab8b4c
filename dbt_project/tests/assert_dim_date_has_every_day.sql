{{ config(severity='error') }}

select count(*) as day_count
from {{ ref('dim_date') }}
where not is_unknown
having count(*) <> max(date_day) - min(date_day) + 1
