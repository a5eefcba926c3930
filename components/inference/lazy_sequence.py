"""A sequence whose items are made when asked for, so that millions of them need no memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")


class LazySequence(Sequence[B], Generic[A, B]):
    """`function` of every item of a sequence, called again whenever one is asked for."""

    def __init__(self, items: Sequence[A], function: Callable[[A], B]) -> None:
        self._items = items
        self._function = function

    @overload
    def __getitem__(self, index: int) -> B: ...

    @overload
    def __getitem__(self, index: slice) -> "LazySequence[A, B]": ...

    def __getitem__(self, index: int | slice) -> "B | LazySequence[A, B]":
        if isinstance(index, slice):
            return LazySequence(self._items[index], self._function)
        return self._function(self._items[index])

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[B]:
        return map(self._function, self._items)
