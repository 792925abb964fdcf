"""tds2el: elastic constants of crystals from thermal diffuse X-ray scattering."""

__version__ = "0.1.0"
