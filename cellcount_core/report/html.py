"""What every page has in common: one self-contained HTML file without scripts, and how it looks."""

from __future__ import annotations

_STYLE = """
:root { color-scheme: light; --ink: #1d2129; --soft: #5c6470; --line: #e3e6ea; --paper: #fff; --tint: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue",
  Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 38px 0 10px; }
p { margin: 6px 0; max-width: 85ch; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.notice { border-left: 4px solid #d08700; background: #fdf6e7; padding: 8px 12px; margin: 14px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 12px; margin: 20px 0 0; }
.card { background: var(--tint); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.card b { display: block; font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; border-bottom-color: #b9bfc8; }
th.text, td.text { text-align: left; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; }
code { font-size: 13px; overflow-wrap: anywhere; }
"""


def html_page(title: str, body: str, style: str = "") -> str:
    """A whole page. `title` and `body` are HTML already: every name in them must be escaped. `style` is added to that of all pages."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}{style.lstrip()}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
