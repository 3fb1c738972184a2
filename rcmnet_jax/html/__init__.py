"""Self-contained HTML pages: one file, no network, light and dark, prints well."""

from rcmnet_jax.html.page import image_uri as image_uri
from rcmnet_jax.html.page import png_uri as png_uri
from rcmnet_jax.html.page import render as render
from rcmnet_jax.html.page import write_page as write_page
