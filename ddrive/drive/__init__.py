"""File trees in feeds: attributes, content, nested drives, versions."""
