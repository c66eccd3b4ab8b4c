"""The vocabulary of the company: names, places, goods, currencies. All made up or generic."""

from typing import NamedTuple


class Country(NamedTuple):
    """A country the company sells to. In `postal`, `#` stands for a digit and `@` for a letter."""

    code: str
    currency: str
    dialling: str
    postal: str
    places: tuple[tuple[str, str], ...]
    streets: tuple[str, ...]
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]


COUNTRIES = (
    Country(
        "DE",
        "EUR",
        "+49",
        "#####",
        (
            ("Berlin", "Berlin"),
            ("München", "Bayern"),
            ("Köln", "Nordrhein-Westfalen"),
            ("Leipzig", "Sachsen"),
        ),
        ("Lindenstraße", "Gartenweg", "Bahnhofstraße", "Am Mühlbach", "Schillerstraße"),
        ("Anna", "Jonas", "Lena", "Paul", "Greta", "Emil", "Frieda", "Jörg", "Käthe", "Lukas"),
        ("Müller", "Schneider", "Weiß", "Hoffmann", "Krüger", "Vogel", "Brandt", "Jäger", "Lorenz", "Arnold"),
    ),
    Country(
        "FR",
        "EUR",
        "+33",
        "#####",
        (
            ("Lyon", "Auvergne-Rhône-Alpes"),
            ("Nantes", "Pays de la Loire"),
            ("Lille", "Hauts-de-France"),
            ("Paris", "Île-de-France"),
        ),
        ("Rue des Lilas", "Avenue Jean Moulin", "Rue de la Gare", "Quai Saint-Antoine"),
        ("Chloé", "Hugo", "Inès", "Louis", "Zoé", "Théo", "Manon", "Rémi", "Élise", "Gaspard"),
        (
            "Martin",
            "Lefèvre",
            "Moreau",
            "Girard",
            "Roussel",
            "Fontaine",
            "Chevalier",
            "Barbier",
            "Noël",
            "Perrot",
        ),
    ),
    Country(
        "NL",
        "EUR",
        "+31",
        "#### @@",
        (
            ("Amsterdam", "Noord-Holland"),
            ("Utrecht", "Utrecht"),
            ("Groningen", "Groningen"),
            ("Delft", "Zuid-Holland"),
        ),
        ("Kerkstraat", "Prinsengracht", "Molenweg", "Dorpsstraat", "Lange Vijverberg"),
        ("Daan", "Sanne", "Bram", "Fleur", "Lotte", "Sem", "Noor", "Thijs", "Maud", "Joris"),
        (
            "de Vries",
            "van Dijk",
            "Bakker",
            "Visser",
            "Smit",
            "Mulder",
            "Bos",
            "van 't Hof",
            "Dekker",
            "Kuipers",
        ),
    ),
    Country(
        "GB",
        "GBP",
        "+44",
        "@@# #@@",
        (("London", "England"), ("Leeds", "England"), ("Cardiff", "Wales"), ("Edinburgh", "Scotland")),
        ("High Street", "Station Road", "Mill Lane", "Church Walk", "Queen's Terrace"),
        ("Olivia", "George", "Amelia", "Harry", "Isla", "Alfie", "Maisie", "Owen", "Freya", "Callum"),
        ("Smith", "O'Neill", "Taylor", "Hughes", "Campbell", "Patel", "Wright", "Khan", "Baker", "Evans"),
    ),
    Country(
        "US",
        "USD",
        "+1",
        "#####",
        (("Portland", "OR"), ("Austin", "TX"), ("Chicago", "IL"), ("Boston", "MA"), ("Denver", "CO")),
        ("Maple Avenue", "2nd Street", "Oak Drive", "Lakeview Road", "Washington Boulevard"),
        ("Emma", "Liam", "Ava", "Noah", "Mia", "Ethan", "Grace", "Mateo", "Naomi", "Caleb"),
        ("Johnson", "Garcia", "Nguyen", "Brown", "Davis", "Lopez", "Wilson", "Kim", "Anderson", "St. Clair"),
    ),
    Country(
        "ES",
        "EUR",
        "+34",
        "#####",
        (
            ("Madrid", "Madrid"),
            ("Sevilla", "Andalucía"),
            ("Bilbao", "País Vasco"),
            ("València", "Comunitat Valenciana"),
        ),
        ("Calle Mayor", "Avenida del Mar", "Calle del Olmo", "Plaza Nueva"),
        ("Lucía", "Martín", "Sofía", "Pablo", "Carmen", "Álvaro", "Inés", "Diego", "Begoña", "Íñigo"),
        ("García", "Fernández", "Muñoz", "Ortega", "Ibáñez", "Vidal", "Núñez", "Romero", "Peña", "Serrano"),
    ),
)
COUNTRY_SHARES = (0.26, 0.18, 0.18, 0.16, 0.14, 0.08)


class Good(NamedTuple):
    """A kind of product, and between which list prices it is sold, in EUR."""

    name: str
    low: int
    high: int


class Category(NamedTuple):
    """A node of the catalogue; roots carry no goods. `new_name` is the one it gets once in its life."""

    category_id: int
    name: str
    parent: int | None
    new_name: str
    code: str
    goods: tuple[Good, ...] = ()


CATEGORIES = (
    Category(1, "Home", None, "Home & Living", "HOM"),
    Category(2, "Outdoor", None, "Outdoor & Travel", "OUT"),
    Category(3, "Office", None, "Office & Studio", "OFF"),
    Category(
        4,
        "Kitchen",
        1,
        "Kitchen & Dining",
        "KIT",
        (
            Good("Kettle", 25, 90),
            Good("Pan", 20, 140),
            Good("Knife", 12, 120),
            Good("Bowl", 6, 40),
            Good("Teapot", 15, 80),
        ),
    ),
    Category(
        5,
        "Lighting",
        1,
        "Lamps & Lighting",
        "LIG",
        (Good("Lamp", 25, 220), Good("Lantern", 15, 70), Good("Spotlight", 18, 90), Good("Pendant", 40, 260)),
    ),
    Category(
        6,
        "Textiles",
        1,
        "Textiles & Rugs",
        "TEX",
        (Good("Blanket", 20, 120), Good("Rug", 40, 320), Good("Cushion", 10, 45), Good("Curtain", 25, 110)),
    ),
    Category(
        7,
        "Camping",
        2,
        "Camping & Hiking",
        "CAM",
        (
            Good("Tent", 90, 480),
            Good("Stove", 30, 140),
            Good("Sleeping Bag", 50, 260),
            Good("Hammock", 25, 110),
        ),
    ),
    Category(
        8,
        "Cycling",
        2,
        "Cycling & Commuting",
        "CYC",
        (
            Good("Helmet", 35, 160),
            Good("Pannier", 40, 140),
            Good("Bell", 5, 25),
            Good("Lock", 15, 110),
            Good("Pump", 10, 60),
        ),
    ),
    Category(
        9,
        "Garden",
        2,
        "Garden & Balcony",
        "GAR",
        (
            Good("Trowel", 5, 25),
            Good("Planter", 10, 90),
            Good("Watering Can", 12, 55),
            Good("Shears", 15, 70),
        ),
    ),
    Category(
        10,
        "Writing",
        3,
        "Writing & Paper",
        "WRI",
        (Good("Notebook", 4, 30), Good("Pen", 2, 90), Good("Inkwell", 8, 40), Good("Envelope Set", 3, 20)),
    ),
    Category(
        11,
        "Furniture",
        3,
        "Desks & Seating",
        "FUR",
        (Good("Desk", 150, 900), Good("Chair", 80, 650), Good("Shelf", 60, 350), Good("Stool", 40, 160)),
    ),
    Category(
        12,
        "Storage",
        3,
        "Storage & Order",
        "STO",
        (Good("Box", 7, 40), Good("Basket", 10, 60), Good("File Rack", 20, 90), Good("Drawer Insert", 8, 45)),
    ),
)
LEAVES = tuple(category for category in CATEGORIES if category.goods)
ADJECTIVES = (
    "Nordic",
    "Compact",
    "Classic",
    "Light",
    "Folding",
    "Quiet",
    "Sturdy",
    "Handmade",
    "Everyday",
    "Studio",
)
MATERIALS = ("Oak", "Steel", "Linen", "Wool", "Bamboo", "Ceramic", "Canvas", "Cork", "Aluminium", "Recycled")

SUPPLIERS = (
    ("Aalto Works", "EUR"),
    ("Brightwater Ltd", "GBP"),
    ("Cedar & Sons", "USD"),
    ("Dux Handel", "EUR"),
    ("Estrela Lda", "EUR"),
    ("Fjell Supply", "EUR"),
    ("Golden Lotus Trading", "USD"),
    ("Hanse Import", "EUR"),
)

EURO_RATES = {
    "AUD": 1.75,
    "BGN": 1.9558,
    "BRL": 6.25,
    "CAD": 1.61,
    "CHF": 0.93,
    "CNY": 8.2,
    "CZK": 24.3,
    "DKK": 7.46,
    "GBP": 0.87,
    "HKD": 9.1,
    "HUF": 386.0,
    "IDR": 19400.0,
    "ILS": 3.8,
    "INR": 104.0,
    "ISK": 147.0,
    "JPY": 182.0,
    "KRW": 1710.0,
    "MXN": 21.1,
    "MYR": 4.8,
    "NOK": 11.8,
    "NZD": 2.03,
    "PHP": 68.5,
    "PLN": 4.23,
    "RON": 5.09,
    "SEK": 10.9,
    "SGD": 1.51,
    "THB": 37.2,
    "TRY": 50.1,
    "USD": 1.17,
    "ZAR": 19.8,
}
"""What one euro bought of each currency on an ordinary day."""
