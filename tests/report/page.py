"""An HTML page as a reader's tools see it: elements, text, references. What is not well-formed raises."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "line", "circle", "polyline"}
# In the page's own drawings these are written closed (`<line …/>`); the parser then reports start and end.


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    texts: list[str] = field(default_factory=list)
    children: list[Element] = field(default_factory=list)

    def every(self, *tags: str) -> list[Element]:
        """Elements of these names below this one, itself included, in reading order."""
        own = [self] if not tags or self.tag in tags else []
        return own + [found for child in self.children for found in child.every(*tags)]

    @property
    def text(self) -> str:
        return "".join(self.texts + [child.text for child in self.children])

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of <{tag}> stands twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            # A circle has a title inside, so it is closed by an end of its own.
            return
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].texts.append(data)


def parse(text: str) -> Element:
    """Returns the page as a tree; every element must end where it should."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].tag}> is not closed"
    return reader.root
