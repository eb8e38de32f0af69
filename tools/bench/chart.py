"""The chart in the README, results.svg."""

from pathlib import Path

import pygal
from pygal.style import Style

from tools.bench.report import Result

# Okabe and Ito's colours, which the colour-blind tell apart; this API's are blue.
BARS = {
    "ours": "#0072b2",
    "ours2": "#003f66",
    "tutorial": "#d55e00",
    "drf": "#999999",
    "pocketbase": "#e69f00",
    "fastify": "#009e73",
}
DARK = "#222222"
VALUES = "inline:text.value {text-anchor: start !important}"  # after the bar
GUIDES = "inline:.guide.line {stroke: #dddddd !important}"


def draw(results: Result) -> None:
    style = Style(
        background="white",
        plot_background="white",
        foreground=DARK,
        foreground_strong=DARK,
        foreground_subtle=DARK,
        opacity=1,
        font_family="sans-serif",
        title_font_size=17,
        label_font_size=14,
        major_label_font_size=14,
        legend_font_size=14,
        value_font_size=12,
        colors=list(BARS.values()),
    )
    reads = results["reads"]
    most = max(max(reads[key].values()) for key in BARS)
    chart = pygal.HorizontalBar(
        style=style,
        js=[],
        width=900,
        height=620,
        range=(0, 1.1 * most),  # with room for the longest bar's value
        legend_at_bottom=True,
        legend_at_bottom_columns=3,
        print_values=True,
        formatter="{:,.0f}".format,
        title=f"Answers a second, 16 clients, {results['machine']}",
    )
    chart.config.css += [VALUES, GUIDES]
    chart.print_values_position = "top"
    requests = list(reversed(reads["ours"]))  # from below to above
    chart.x_labels = [request.removeprefix("GET /api") for request in requests]
    for key in BARS:
        rates = [reads[key][request] for request in requests]
        chart.add(results["names"][key], rates)
    Path(__file__).with_name("results.svg").write_bytes(chart.render(is_unicode=False))
