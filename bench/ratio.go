package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Goal is a figure with what is wanted of it. Nearly all are ratios of two things
// that were measured in turns; the others have a unit.
type Goal struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit,omitempty"` // empty for a ratio
	Rounds  []float64 `json:"rounds"`         // one figure a round
	Want    float64   `json:"want"`
	AtMost  bool      `json:"at_most"`           // else at least
	Open    bool      `json:"open,omitempty"`    // told without a goal
	Ours    []float64 `json:"ours,omitempty"`    // what the ratios are made of
	Theirs  []float64 `json:"theirs,omitempty"`  //
	Against string    `json:"against,omitempty"` // whose theirs are
}

// ratio makes a goal of two series that were measured in turns.
func ratio(name string, ours, theirs []float64, against string, want float64, atMost bool) Goal {
	g := Goal{Name: name, Ours: ours, Theirs: theirs, Against: against, Want: want, AtMost: atMost}
	for i := range min(len(ours), len(theirs)) {
		g.Rounds = append(g.Rounds, ours[i]/theirs[i])
	}
	return g
}

// told is g without a goal.
func told(g Goal) Goal {
	g.Open = true
	return g
}

// Median of the rounds.
func (g Goal) Median() float64 { return median(g.Rounds) }

// Verdict is ok or short, or nothing where there is no goal.
func (g Goal) Verdict() string {
	m := g.Median()
	switch {
	case g.Open:
		return ""
	case g.AtMost && m <= g.Want, !g.AtMost && m >= g.Want:
		return "ok"
	}
	return "short"
}

// Wanted is the goal in words.
func (g Goal) Wanted() string {
	switch {
	case g.Open:
		return "–"
	case g.AtMost:
		return "≤ " + number(g.Want) + unit(g.Unit)
	}
	return "≥ " + number(g.Want) + unit(g.Unit)
}

// Value is the median in words.
func (g Goal) Value() string { return number(g.Median()) + unit(g.Unit) }

// Spread is the least and the largest of the rounds, in words.
func (g Goal) Spread() string {
	if len(g.Rounds) < 2 {
		return "–"
	}
	return number(slices.Min(g.Rounds)) + " – " + number(slices.Max(g.Rounds))
}

// String is one line: name, value, goal, verdict.
func (g Goal) String() string {
	return fmt.Sprintf("%s\t%s\t%s\t%s", g.Name, g.Value(), g.Wanted(), g.Verdict())
}

func unit(u string) string {
	if u == "" || u == "%" {
		return u
	}
	return " " + u
}

// number has three digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a >= 100:
		return grouped(int64(math.Round(v)))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1 || a == 0:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// grouped puts commas between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// best is the index of the series with the greatest median; -1 if there is none.
func best(series [][]float64) int {
	b := -1
	for i, s := range series {
		if len(s) > 0 && (b < 0 || median(s) > median(series[b])) {
			b = i
		}
	}
	return b
}

// inTurns measures all sides once a round, and the order changes each round: so
// what slows the machine down for a while slows down all.
func inTurns(rounds int, sides []func() (float64, error)) ([][]float64, error) {
	figures := make([][]float64, len(sides))
	for r := range rounds {
		for _, i := range order(r, len(sides)) {
			v, err := sides[i]()
			if err != nil {
				return nil, err
			}
			figures[i] = append(figures[i], v)
		}
	}
	return figures, nil
}

// order of n sides in a round: each begins in turn, and every other round goes
// backwards.
func order(round, n int) []int {
	o := make([]int, n)
	for i := range o {
		o[i] = (i + round/2) % n
	}
	if round%2 == 1 {
		slices.Reverse(o)
	}
	return o
}
