"""Markdown tables of medians over rounds, with ratios against hard."""

import statistics

from lib import FOREIGN, say


def middle(values, digits):
    """Median (min-max)."""
    if not values:
        return "-"
    m = f"{statistics.median(values):.{digits}f}"
    return m if len(values) == 1 else f"{m} ({min(values):.{digits}f}-{max(values):.{digits}f})"


class Table:
    """Values of contenders by round; a column with ratio adds hard's value divided by the row's, round by round."""

    def __init__(self, title, *columns, base="hard", first="contender"):
        self.title, self.columns, self.base, self.first = title, columns, base, first  # columns: (heading, key, digits, ratio)
        self.rows, self.notes = {}, []

    def put(self, contender, rnd, values):
        for key, v in values.items():
            self.rows.setdefault(contender, {}).setdefault(key, {})[rnd] = v

    def add(self, contender, rnd, values):
        """Also reports progress."""
        self.put(contender, rnd, values)
        shown = ", ".join(f"{h} {values[k]:.{d}f}" for h, k, d, _ in self.columns if values.get(k) is not None)
        say(f"  {self.title}: {contender}: {shown}")

    def ratio(self, contender, key):
        base, row = self.rows.get(self.base, {}).get(key, {}), self.rows[contender].get(key, {})
        both = [base[r] / row[r] for r in base if row.get(r) and base[r] is not None]
        return f"{statistics.median(both):.2f}" if both and contender != self.base else "-"

    def __str__(self):
        head = [self.first]
        for heading, _, _, ratio in self.columns:
            head += [heading] + ([self.base + " / this"] if ratio else [])
        lines = [f"### {self.title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for name, row in self.rows.items():
            cells = [name]
            for _, key, digits, ratio in self.columns:
                cells.append(middle([v for v in row.get(key, {}).values() if v is not None], digits))
                cells += [self.ratio(name, key)] if ratio else []
            lines.append("| " + " | ".join(cells) + " |")
        notes = self.notes + self.disturbed()
        return "\n".join(lines + [""] + notes + [""] * bool(notes))

    def disturbed(self):
        """A line about the rows that were measured while other programs used the machine."""
        most = {name: max(row.get("foreign", {0: 0}).values()) for name, row in self.rows.items()}
        rows = [f"{name} ({cores:.1f})" for name, cores in most.items() if cores > FOREIGN]
        return ["Other programs used the machine (processors, at most) during: " + ", ".join(rows) + "."] if rows else []
