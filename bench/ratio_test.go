package bench

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func TestRatio(t *testing.T) {
	g := ratio("ours ÷ theirs", []float64{10, 40, 60}, []float64{10, 20, 10}, "theirs", 2, false)
	if !slices.Equal(g.Rounds, []float64{1, 2, 6}) || g.Median() != 2 || g.Spread() != "1.00 – 6.00" || g.Verdict() != "ok" {
		t.Errorf("%+v: %s, %s", g, g.Spread(), g.Verdict())
	}
	if got, want := g.String(), "ours ÷ theirs\t2.00\t≥ 2.00\tok"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	g.Want = 2.01
	if g.Verdict() != "short" {
		t.Errorf("2 is %s of 2.01", g.Verdict())
	}
	g.AtMost = true
	if g.Verdict() != "ok" || g.Wanted() != "≤ 2.01" {
		t.Errorf("2 is %s of %s", g.Verdict(), g.Wanted())
	}
	g.Want = 1.99
	if g.Verdict() != "short" {
		t.Errorf("2 is %s of at most 1.99", g.Verdict())
	}
	if g = told(g); g.Verdict() != "" || g.Wanted() != "–" {
		t.Errorf("without a goal it is %q of %q", g.Verdict(), g.Wanted())
	}
	// What only one side has a figure for is no round.
	if g := ratio("", []float64{1, 2}, []float64{1}, "", 1, false); len(g.Rounds) != 1 || g.Spread() != "–" {
		t.Errorf("%+v", g)
	}
}

func TestMedianAndBest(t *testing.T) {
	if median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1, 2, 3}) != 2.5 || !math.IsNaN(median(nil)) {
		t.Error("the median is wrong")
	}
	if b := best([][]float64{nil, {1, 9, 1}, {2, 2, 2}, {}}); b != 2 {
		t.Errorf("the best is %d", b)
	}
	if best([][]float64{nil, {}}) != -1 {
		t.Error("nobody is the best")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.00", 1: "1.00", 0.0123456: "0.0123", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567",
		-1234: "-1,234", -999.6: "-1,000", 999.6: "1,000", math.Inf(1): "–",
	} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func TestInTurns(t *testing.T) {
	var calls []int
	sides := make([]func() (float64, error), 3)
	for i := range sides {
		sides[i] = func() (float64, error) {
			calls = append(calls, i)
			return float64(i), nil
		}
	}
	figures, err := inTurns(6, sides)
	if err != nil {
		t.Fatal(err)
	}
	firsts := make(map[int]int)
	for r := range 6 {
		round := calls[3*r : 3*r+3]
		if s := slices.Sorted(slices.Values(round)); !slices.Equal(s, []int{0, 1, 2}) {
			t.Fatalf("round %d measured %v", r, round)
		}
		firsts[round[0]]++
	}
	for i := range sides {
		if len(figures[i]) != 6 || figures[i][0] != float64(i) {
			t.Errorf("side %d has %v", i, figures[i])
		}
		if firsts[i] != 2 {
			t.Errorf("side %d was first in %d of 6 rounds", i, firsts[i])
		}
	}
	broken := errors.New("broken")
	if _, err := inTurns(1, []func() (float64, error){func() (float64, error) { return 0, broken }}); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}
