"""How long the page was out of sight while a pair was on it: nobody reads a hidden tab.

The browser tells when the page comes back into sight, and only then, so that reading costs nothing.
"""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

_SCRIPT = """
export default function ({ data, setStateValue }) {
  let since = null, hidden = data.hidden, lost = data.lost;
  const changed = () => {
    if (document.visibilityState === "hidden") { since = performance.now(); lost += 1; return; }
    if (since === null) return;
    hidden += (performance.now() - since) / 1000; since = null;
    setStateValue("away", { pair: data.pair, hidden, lost });
  };
  document.addEventListener("visibilitychange", changed);
  return () => document.removeEventListener("visibilitychange", changed);
}
"""

_watch = st.components.v2.component("qwen_eval_sight", js=_SCRIPT)


def away(assignment: str) -> tuple[float, int]:
    """Seconds out of sight since the assignment is on the page, and how often."""
    known = st.session_state.setdefault("away", {})
    hidden, lost = known.get(assignment, (0.0, 0))
    told = _watch(
        key=f"sight-{assignment}",
        data={"pair": assignment, "hidden": hidden, "lost": lost},
        on_away_change=lambda: None,
    ).away
    if isinstance(told, dict) and told.get("pair") == assignment:
        # Nobody but a meddling browser says something else.
        with suppress(KeyError, TypeError, ValueError):
            known[assignment] = float(told["hidden"]), int(told["lost"])
    found: tuple[float, int] = known.get(assignment, (0.0, 0))
    return found
