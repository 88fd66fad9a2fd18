"""The dataset `synthetic_captcha`: its options, captchas of the package `captcha`, and letters drawn one by one."""

from collections.abc import Iterable

from decoderbench import Dataset, hookimpl

from .dataset import SyntheticCaptcha as SyntheticCaptcha


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `synthetic_captcha`."""
    return [SyntheticCaptcha]
