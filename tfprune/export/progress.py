"""The stage that an export is in, shown on a terminal."""

import contextlib
from collections.abc import Callable, Iterator

Begin = Callable[[str], None]


@contextlib.contextmanager
def stages(title: str, count: int) -> Iterator[Begin]:
    """Yield a function that shows which of `count` stages begins, on a terminal alone."""
    from tqdm import tqdm

    form = "{desc} [{n_fmt} of {total_fmt}]"
    with tqdm(total=count, desc=title, bar_format=form, leave=False, disable=None) as bar:

        def begin(stage: str) -> None:
            bar.set_description_str(f"{title}: {stage}", refresh=False)
            bar.update()
            bar.refresh()

        yield begin
