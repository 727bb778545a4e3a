"""Reading a submitted HTML form back into its fields."""

from __future__ import annotations

from collections.abc import Mapping
from email import policy
from email.parser import BytesParser
from urllib.parse import parse_qsl


def form_fields(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """Name to value of a urlencoded or multipart form (HTML living standard, 4.10.21.5); files are left out."""
    content_type = headers.get("Content-Type", "")
    if content_type.startswith("multipart/form-data"):
        return _multipart(content_type, body)
    return dict(parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True))


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    fields: dict[str, str] = {}
    for part in BytesParser(policy=policy.HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes) and part.get_filename() is None:
            fields[name] = content.decode("utf-8", errors="replace")
    return fields
