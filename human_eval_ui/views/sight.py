"""The script beside a pair: how long the page was out of sight while the pair was on it, for nobody
reads a hidden tab; and what keys and scrolling need that Streamlit does not do.

The browser tells when the page comes back into sight, and only then, so that reading costs nothing.
A key that is held down presses once; Enter and Esc leave the comment, so that the keys choose
again; and a pair opens at its top.
"""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

_SCRIPT = """
// Kept by pair: the function below is called anew whenever the server says something.
const sums = new Map();
let shown = null;

const typed = (target) => target.closest?.("input, textarea, [contenteditable=true]");
const plain = (event) => !event.ctrlKey && !event.metaKey && !event.altKey &&
  (event.key === "Enter" || (event.key.length === 1 && event.key !== " "));

const pressed = (event) => {
  const field = typed(event.target);
  if (field) {
    // Enter may end a word of an input method, not the comment. Streamlit takes the text first.
    if (["Enter", "Escape"].includes(event.key) && !event.isComposing && event.keyCode !== 229)
      setTimeout(() => field.blur());
  } else if (event.repeat && plain(event)) {
    event.stopImmediatePropagation();
    event.preventDefault();
  }
};

export default function ({ data, setStateValue }) {
  const { pair } = data;
  if (pair !== shown) {
    if (sums.has(shown)) sums.get(shown).since = null;
    shown = pair;
    document.querySelector(".stMain")?.scrollTo(0, 0);
  }
  // What the server knows is older than what is kept here.
  if (!sums.has(pair)) sums.set(pair, { hidden: data.hidden, lost: data.lost, since: null });
  const sum = sums.get(pair);
  const looked = () => {
    const now = performance.now() / 1000;
    if (document.visibilityState === "hidden") {
      if (sum.since === null) { sum.since = now; sum.lost += 1; }
    } else if (sum.since !== null) {
      sum.hidden += now - sum.since;
      sum.since = null;
      setStateValue("away", { pair, hidden: sum.hidden, lost: sum.lost });
    }
  };
  looked();
  document.addEventListener("visibilitychange", looked);
  window.addEventListener("keydown", pressed, true);
  return () => {
    document.removeEventListener("visibilitychange", looked);
    window.removeEventListener("keydown", pressed, true);
  };
}
"""

_watch = st.components.v2.component("qwen_eval_sight", js=_SCRIPT)


def away(assignment: str) -> tuple[float, int]:
    """Seconds out of sight since the assignment is on the page, and how often."""
    known = st.session_state.setdefault("away", {})
    hidden, lost = known.get(assignment, (0.0, 0))
    told = _watch(
        key="sight",  # one for all pairs: between two there is no moment without it
        data={"pair": assignment, "hidden": hidden, "lost": lost},
        on_away_change=lambda: None,
    ).away
    if isinstance(told, dict) and told.get("pair") == assignment:
        # Nobody but a meddling browser says something else.
        with suppress(KeyError, TypeError, ValueError):
            known[assignment] = float(told["hidden"]), int(told["lost"])
    found: tuple[float, int] = known.get(assignment, (0.0, 0))
    return found
