#!/usr/bin/env python3
"""Two plots of `cargo bench --bench e2e -- --json > e2e.json`, as SVG: what adit does and what it
costs, in multiples of the stock relay of the same run.

    benches/plot.py e2e.json docs/performance.svg
"""
import json
import sys

WIDTH, ROW, LEFT, TOP = 760, 26, 190, 46
COLOURS = {"adit": "#2b6cb0", "null": "#a0aec0", "stock": "#dd6b20"}
# Memory and latency are better when they are small.
SMALL_IS_GOOD = {"idle_memory", "thousands_memory", "keep_alive_1", "tail_beside_bulk",
                 "far_peer_start"}
# So many times better that nothing else could be read.
LEFT_OUT = {"beside_thousands"}


def text(x, y, words, anchor="start", size=12, colour="#1a202c"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-family="sans-serif" font-size="{size}" '
            f'text-anchor="{anchor}" fill="{colour}">{words}</text>')


def rows(document):
    """For each scenario: how well it does, and how much CPU each piece of work takes."""
    for entry in document["scenarios"]:
        name = entry["scenario"]
        stock = entry.get("stock")
        if name in LEFT_OUT or not stock or not stock["median"]:
            continue
        well, cost = {}, {}
        for kind in ("adit", "null"):
            of = entry.get(kind)
            if not of:
                continue
            ratio = of["median"] / stock["median"]
            well[kind] = 1 / ratio if name in SMALL_IS_GOOD else ratio
            used = stock["cpu_user"] + stock["cpu_system"]
            if used > 0:
                cost[kind] = (of["cpu_user"] + of["cpu_system"]) / used
        yield name.replace("_", " "), well, cost


def plot(title, table, top):
    """Bars from `top` down; returns the markup and the height used."""
    most = max(max(values.values()) for _, values in table) * 1.1
    scale = (WIDTH - LEFT - 70) / max(most, 1.2)
    out, y = [text(16, top + 20, title, size=15)], top + TOP
    for name, values in table:
        out.append(text(LEFT - 10, y + 14, name, "end"))
        for at, (kind, value) in enumerate(values.items()):
            height = ROW / 2 - 3
            place = y + at * (height + 1)
            out.append(f'<rect x="{LEFT}" y="{place:.1f}" width="{value * scale:.1f}" '
                       f'height="{height:.1f}" fill="{COLOURS[kind]}"/>')
            out.append(text(LEFT + value * scale + 6, place + 9, f"{kind} {value:.2f}", size=10))
        y += ROW + 6
    line = LEFT + scale
    out.append(f'<line x1="{line:.1f}" x2="{line:.1f}" y1="{top + TOP - 8}" y2="{y}" '
               f'stroke="{COLOURS["stock"]}" stroke-width="1.5" stroke-dasharray="4 3"/>')
    out.append(text(line, top + TOP - 12, "stock relay = 1", "middle", 10, COLOURS["stock"]))
    return "\n".join(out), y - top + 16


def main(source, target):
    with open(source, encoding="utf-8") as file:
        document = json.load(file)
    table = list(rows(document))
    well = [(name, values) for name, values, _ in table if values]
    cost = [(name, values) for name, _, values in table if values]
    first, height = plot("How well, more is better", well, 0)
    second, more = plot("CPU for each piece of work, less is better", cost, height)
    total = height + more
    with open(target, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" '
                   f'viewBox="0 0 {WIDTH} {total}"><rect width="100%" height="100%" fill="#fff"/>\n'
                   f"{first}\n{second}\n</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
