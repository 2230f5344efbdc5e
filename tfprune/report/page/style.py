"""The page's style sheet: one accent colour, light and dark."""

STYLE = """
:root { --page: #ffffff; --ink: #1c2733; --faint: #66727f; --rule: #dde3e9; --track: #e6ebf0;
  --kept: #2563a8; --card: #f5f7f9; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14191f; --ink: #e4e9ee; --faint: #97a3af; --rule: #2c353f; --track: #29323c;
    --kept: #6ba6e8; --card: #1c232b; }
  img { filter: brightness(1.7); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 20px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 40px 0 6px; }
p { color: var(--faint); margin: 0 0 12px; max-width: 74ch; }
.scroll { overflow-x: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; }
.cards div { background: var(--card); border-radius: 8px; padding: 14px 16px; color: var(--faint);
  font-size: 13px; }
.cards b { display: block; font-size: 24px; color: var(--ink); font-weight: 600; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums;
  width: 100%; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: break-word; }
th { color: var(--faint); font-weight: 500; }
td.n, th.n { text-align: right; white-space: nowrap; padding: 5px 0 5px 16px; }
svg { max-width: 100%; height: auto; display: block;
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }
.ink { fill: var(--ink); } .faint { fill: var(--faint); } .track { fill: var(--track); }
.kept { fill: var(--kept); } .mark { fill: var(--ink); } .rule { stroke: var(--rule); }
.pale { fill: var(--kept); opacity: .3; } .outline { fill: none; stroke: var(--ink); opacity: .6; }
.small { font-size: 10px; }
.line, .dashed { fill: none; stroke: var(--kept); stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 4; } .thin { stroke-width: 1; opacity: .7; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 24px; }
.kernels { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 12px 14px;
  display: grid; grid-template-columns: 96px 1fr; gap: 8px 16px; align-items: center; }
figcaption { grid-column: 1 / -1; font-size: 13px; overflow-wrap: anywhere; }
figure.bands { display: block; margin-top: 16px; }
.multiples { display: flex; flex-wrap: wrap; gap: 14px 18px; margin: 10px 0 4px; }
.filters { display: flex; align-items: center; flex-wrap: wrap; gap: 6px; margin-top: 6px; }
.filters span { width: 46px; font-size: 12px; color: var(--faint); }
img { width: 96px; height: 96px; image-rendering: pixelated; border: 1px solid var(--rule); }
"""
