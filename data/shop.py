"""What the shop sells: articles, who buys them in which colours, and a product and its row for each number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from random import Random
from typing import Final

import garments
from pen import GOLD, PATTERNS, RGB, SILVER, Overlay, Pen, developed
from PIL import ImageOps

QUALITY: Final = 85

COLOURS: Final[dict[str, RGB]] = {
    "Black": (44, 44, 48),
    "White": (247, 247, 245),
    "Grey": (148, 150, 154),
    "Charcoal": (76, 80, 86),
    "Silver": SILVER,
    "Navy Blue": (36, 50, 96),
    "Blue": (56, 104, 184),
    "Turquoise Blue": (48, 172, 188),
    "Teal": (24, 118, 122),
    "Green": (54, 138, 78),
    "Sea Green": (94, 178, 146),
    "Olive": (110, 112, 62),
    "Khaki": (178, 160, 118),
    "Beige": (222, 204, 172),
    "Cream": (244, 234, 206),
    "Yellow": (242, 206, 66),
    "Mustard": (206, 156, 48),
    "Gold": GOLD,
    "Orange": (236, 128, 48),
    "Peach": (250, 190, 158),
    "Rust": (176, 84, 48),
    "Tan": (186, 134, 84),
    "Brown": (112, 72, 46),
    "Red": (204, 44, 50),
    "Maroon": (122, 32, 48),
    "Pink": (240, 142, 172),
    "Magenta": (200, 46, 124),
    "Purple": (112, 66, 150),
    "Lavender": (188, 170, 220),
}
CLOTH: Final = [
    "Black",
    "Black",
    "White",
    "White",
    "Navy Blue",
    "Navy Blue",
    "Blue",
    "Blue",
    "Grey",
    "Grey",
    "Red",
    "Green",
    "Charcoal",
    "Maroon",
    "Olive",
    "Teal",
    "Yellow",
    "Orange",
    "Sea Green",
    "Turquoise Blue",
    "Purple",
    "Beige",
    "Cream",
    "Mustard",
    "Rust",
]
BRIGHT: Final = [*CLOTH, "Pink", "Pink", "Pink", "Magenta", "Magenta", "Lavender", "Lavender", "Peach", "Peach", "Red", "Purple"]
DENIM: Final = ["Blue", "Blue", "Blue", "Navy Blue", "Navy Blue", "Black", "Grey"]
SOBER: Final = ["Black", "Black", "Navy Blue", "Grey", "Charcoal", "Khaki", "Beige", "Brown", "Olive"]
HIDE: Final = ["Black", "Black", "Brown", "Brown", "Tan"]
SHOES: Final = ["Black", "Black", "White", "White", "Grey", "Navy Blue", "Blue", "Red", "Brown", "Tan", "Green", "Olive"]
LADIES: Final = ["Black", "Black", "Red", "Pink", "Beige", "Tan", "Brown", "Gold", "Silver", "Purple", "Maroon", "Cream", "Turquoise Blue"]
STRAP: Final = ["Black", "Black", "Brown", "Tan", "Silver", "Gold", "White", "Navy Blue", "Pink"]
PAINT: Final = ["Red", "Red", "Pink", "Pink", "Magenta", "Maroon", "Peach", "Purple", "Rust"]

SEASONS: Final = ("Summer", "Fall", "Winter", "Spring")
ANY_TIME: Final = (35, 70, 91, 100)  # running totals of the seasons' shares
WARM: Final = (74, 84, 85, 100)
COLD: Final = (2, 52, 96, 100)
YEARS: Final = range(2007, 2019)
YEAR_TOTALS: Final = tuple(accumulate((2, 3, 6, 27, 21, 20, 8, 5, 4, 4, 3, 2)))
BRANDS: Final = (
    "Harbour",
    "Oakmere",
    "Tidewell",
    "Larkspun",
    "Quillfold",
    "Norrvane",
    "Saltmarch",
    "Emberlow",
    "Brackenby",
    "Kitewise",
    "Plumbright",
    "Zephyrow",
    "Mossandel",
    "Vellouri",
    "Corriden",
    "Hollowbrook",
)
TAILS: Final = (", Pack of 2", ", Slim Fit", ", New Arrival", ", Limited Edition")  # the comma nobody quoted


@dataclass(frozen=True)
class Article:
    """One kind of thing: its place in the catalogue, who wears it, how often it is sold to them, how it is drawn."""

    kind: str
    noun: str
    category: str  # masterCategory/subCategory
    draw: Callable[[Pen, Random, Overlay], None]
    shares: dict[str, int]
    colours: Sequence[str]
    usages: Sequence[str] = ("Casual",)
    seasons: Sequence[int] = ANY_TIME
    patterns: Sequence[str] = ()
    turns: bool = False  # looks right from the other side as well


WOVEN: Final = ("Striped", "Checked", "Checked", "Dotted")
KNITTED: Final = ("Striped", "Striped", "Printed", "Printed", "Dotted")
TOPS: Final = "Apparel/Topwear"
BOTTOMS: Final = "Apparel/Bottomwear"
FOOTWEAR: Final = "Footwear/Shoes"
ARTICLES: Final = (
    Article(
        "Tshirts",
        "T-shirt",
        TOPS,
        garments.tshirt,
        {"Men": 16, "Women": 7, "Boys": 34, "Girls": 26, "Unisex": 6},
        CLOTH,
        ("Casual", "Casual", "Sports"),
        ANY_TIME,
        KNITTED,
    ),
    Article(
        "Shirts", "Shirt", TOPS, garments.shirt, {"Men": 17, "Women": 4, "Boys": 16}, CLOTH, ("Casual", "Casual", "Formal"), ANY_TIME, WOVEN
    ),
    Article("Jackets", "Jacket", TOPS, garments.jacket, {"Men": 5, "Women": 4, "Boys": 8}, CLOTH, ("Casual", "Sports"), COLD),
    Article(
        "Sweatshirts",
        "Sweatshirt",
        TOPS,
        garments.sweatshirt,
        {"Men": 4, "Women": 3, "Boys": 10, "Girls": 8},
        CLOTH,
        ("Casual", "Sports"),
        COLD,
    ),
    Article("Sweaters", "Sweater", TOPS, garments.sweater, {"Men": 4, "Women": 3, "Girls": 4}, CLOTH, ("Casual",), COLD, ("Striped",)),
    Article("Kurtas", "Kurta", TOPS, garments.kurta, {"Men": 3, "Women": 6}, BRIGHT, ("Ethnic",), ANY_TIME, ("Dotted", "Striped")),
    Article(
        "Tops",
        "Top",
        TOPS,
        garments.blouse,
        {"Women": 10, "Girls": 14},
        BRIGHT,
        ("Casual", "Casual", "Party"),
        ANY_TIME,
        ("Striped", "Dotted", "Dotted"),
    ),
    Article(
        "Dresses",
        "Dress",
        "Apparel/Dress",
        garments.dress,
        {"Women": 10, "Girls": 18},
        BRIGHT,
        ("Casual", "Party"),
        ANY_TIME,
        ("Dotted", "Dotted", "Striped"),
    ),
    Article(
        "Skirts", "Skirt", BOTTOMS, garments.skirt, {"Women": 5, "Girls": 10}, BRIGHT, ("Casual",), WARM, ("Dotted", "Checked", "Checked")
    ),
    Article("Jeans", "Jeans", BOTTOMS, garments.jeans, {"Men": 7, "Women": 6, "Boys": 10, "Girls": 8}, DENIM),
    Article("Trousers", "Trousers", BOTTOMS, garments.trousers, {"Men": 6, "Women": 3}, SOBER, ("Formal", "Formal", "Casual")),
    Article("Track Pants", "Track Pants", BOTTOMS, garments.track_pants, {"Men": 4, "Women": 2, "Boys": 8}, SOBER, ("Sports",)),
    Article(
        "Shorts",
        "Shorts",
        BOTTOMS,
        garments.shorts,
        {"Men": 5, "Women": 3, "Boys": 14, "Girls": 6},
        [*SOBER, "Blue", "Red"],
        ("Casual", "Sports"),
        WARM,
        ("Checked",),
    ),
    Article("Casual Shoes", "Casual Shoes", FOOTWEAR, garments.casual_shoe, {"Men": 8, "Women": 3, "Unisex": 3}, SHOES, turns=True),
    Article("Sports Shoes", "Sports Shoes", FOOTWEAR, garments.sports_shoe, {"Men": 8, "Women": 3}, SHOES, ("Sports",), turns=True),
    Article("Formal Shoes", "Formal Shoes", FOOTWEAR, garments.formal_shoe, {"Men": 6}, HIDE, ("Formal",), turns=True),
    Article("Heels", "Heels", FOOTWEAR, garments.heels, {"Women": 9}, LADIES, ("Casual", "Party", "Formal"), turns=True),
    Article("Flats", "Flats", FOOTWEAR, garments.flats, {"Women": 5}, LADIES, turns=True),
    Article(
        "Sandals",
        "Sandals",
        "Footwear/Sandal",
        garments.sandal,
        {"Men": 3, "Women": 3},
        [*HIDE, "Navy Blue", "Olive"],
        seasons=WARM,
        turns=True,
    ),
    Article(
        "Flip Flops", "Flip Flops", "Footwear/Flip Flops", garments.flip_flops, {"Men": 3, "Women": 2, "Unisex": 4}, CLOTH, seasons=WARM
    ),
    Article("Handbags", "Handbag", "Accessories/Bags", garments.handbag, {"Women": 12}, LADIES, ("Casual", "Party")),
    Article("Backpacks", "Backpack", "Accessories/Bags", garments.backpack, {"Men": 3, "Unisex": 26}, CLOTH, ("Casual", "Sports")),
    Article("Watches", "Watch", "Accessories/Watches", garments.watch, {"Men": 8, "Women": 6, "Unisex": 10}, STRAP, ("Casual", "Formal")),
    Article("Caps", "Cap", "Accessories/Headwear", garments.cap, {"Men": 4, "Unisex": 18}, CLOTH, ("Casual", "Sports"), WARM, turns=True),
    Article("Belts", "Belt", "Accessories/Belts", garments.belt, {"Men": 4, "Women": 1}, HIDE, ("Casual", "Formal")),
    Article("Wallets", "Wallet", "Accessories/Wallets", garments.wallet, {"Men": 4, "Women": 2}, [*HIDE, "Maroon"]),
    Article(
        "Sunglasses",
        "Sunglasses",
        "Accessories/Eyewear",
        garments.sunglasses,
        {"Men": 3, "Women": 3, "Unisex": 12},
        STRAP[:4],
        seasons=WARM,
    ),
    Article(
        "Ties",
        "Tie",
        "Accessories/Ties",
        garments.tie,
        {"Men": 3},
        ["Navy Blue", "Maroon", "Grey", "Black", "Red", "Teal", "Purple"],
        ("Formal",),
    ),
    Article(
        "Socks",
        "Socks",
        "Accessories/Socks",
        garments.socks,
        {"Men": 3, "Unisex": 5},
        CLOTH,
        ("Casual", "Sports"),
        patterns=("Striped", "Dotted"),
    ),
    Article(
        "Perfume and Body Mist",
        "Perfume",
        "Personal Care/Fragrance",
        garments.perfume,
        {"Men": 2, "Women": 3},
        ["Blue", "Teal", "Gold", "Pink", "Lavender"],
    ),
    Article("Lipstick", "Lipstick", "Personal Care/Lips", garments.lipstick, {"Women": 3}, PAINT),
    Article("Nail Polish", "Nail Polish", "Personal Care/Nails", garments.nail_polish, {"Women": 3}, PAINT),
)
GENDERS: Final = ("Men", "Women", "Unisex", "Boys", "Girls")
GENDER_TOTALS: Final = (56, 86, 92, 97, 100)
SHELVES: Final = {gender: [article for article in ARTICLES if gender in article.shares] for gender in GENDERS}
SHELF_TOTALS: Final = {gender: list(accumulate(article.shares[gender] for article in SHELVES[gender])) for gender in GENDERS}


@dataclass(frozen=True)
class Product:
    """What an image shows; rows that share an image share this."""

    gender: str
    article: Article
    colour: str
    pattern: str


@lru_cache(maxsize=8192)
def product_for(seed: int, number: int) -> Product:
    """Choose the product of one image."""
    rng = Random(f"{seed}/product/{number}")
    gender = rng.choices(GENDERS, cum_weights=GENDER_TOTALS)[0]
    article = rng.choices(SHELVES[gender], cum_weights=SHELF_TOTALS[gender])[0]
    pattern = rng.choice(article.patterns) if article.patterns and rng.random() < 0.45 else ""
    return Product(gender, article, rng.choice(article.colours), pattern)


def cells_for(product: Product, rng: Random, identity: int) -> list[str]:
    """The ten cells of one row."""
    article = product.article
    master, sub = article.category.split("/")
    season = rng.choices(SEASONS, cum_weights=article.seasons)[0]
    year = rng.choices(YEARS, cum_weights=YEAR_TOTALS)[0]
    words = (rng.choice(BRANDS), product.gender, product.colour, product.pattern, article.noun)
    name = " ".join(word for word in words if word)
    return [str(identity), product.gender, master, sub, article.kind, product.colour, season, str(year), rng.choice(article.usages), name]


def render(product: Product, seed: int, number: int, size: tuple[int, int]) -> bytes:
    """Draw one product as a JPEG."""
    rng = Random(f"{seed}/look/{number}")
    pen = Pen(size, COLOURS[product.colour], rng.uniform(0.9, 1.0), (rng.uniform(-1, 1), rng.uniform(-1, 1)))

    def overlay() -> None:
        if product.pattern:
            PATTERNS[product.pattern](pen, rng)

    product.article.draw(pen, rng, overlay)
    picture = developed(pen, rng, size)
    if product.article.turns and rng.random() < 0.25:
        picture = ImageOps.mirror(picture)
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
