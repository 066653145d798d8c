package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestTextIsTheSameForASeed(t *testing.T) {
	say := func(seed uint64) (bodies []string) {
		x, rng := newText(seed), rand.New(rand.NewPCG(seed, 1))
		for range 50 {
			bodies = append(bodies, x.body(rng))
		}
		return bodies
	}
	if !slices.Equal(say(7), say(7)) {
		t.Error("the same seed gave other messages")
	}
	if slices.Equal(say(7), say(8)) {
		t.Error("another seed gave the same messages")
	}
}

func TestLengthsAreAsPublished(t *testing.T) {
	x, rng := newText(1), rand.New(rand.NewPCG(1, 1))
	const n = 40000
	var logs, lengths []float64
	mean := 0.0
	for range n {
		b := x.body(rng)
		if b == "" || len(b) > maxLetters || strings.TrimSpace(b) != b || strings.Trim(b, "abcdefghijklmnopqrstuvwxyz ") != "" {
			t.Fatalf("the body %q is no plain text", b)
		}
		lengths = append(lengths, float64(len(b)))
		logs = append(logs, math.Log(float64(len(b))))
		mean += float64(len(b)) / n
	}
	// The median and the mean of the distribution are exp(mu) and exp(mu + sigma²/2).
	near(t, "median", median(lengths), math.Exp(lettersMu), 0.05)
	near(t, "mean", mean, math.Exp(lettersMu+lettersSigma*lettersSigma/2), 0.05)
	slices.Sort(logs)
	// A normal distribution has 68.3 % within one sigma.
	near(t, "upper sigma", logs[n*8413/10000]-logs[n/2], lettersSigma, 0.05)
}

func near(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if math.Abs(got-want) > by*want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestContactsAreAsPublished(t *testing.T) {
	share := zipf(contacts, contactZipf)
	near(t, "share of the first five", share[4], 0.64, 0.01)
	if len(share) != contacts || share[contacts-1] < 0.999999 {
		t.Errorf("the shares add up to %v", share[len(share)-1])
	}
	rng := rand.New(rand.NewPCG(1, 1))
	const n = 100000
	first := 0
	for range n {
		if rankAt(share, rng.Float64()) < 5 {
			first++
		}
	}
	near(t, "drawn of the first five", float64(first)/n, 0.64, 0.01)
	if rankAt(share, 0) != 0 || rankAt(share, 1) != contacts-1 {
		t.Error("the ends of the distribution are not its first and last rank")
	}
}

func TestWordsFollowZipf(t *testing.T) {
	x, rng := newText(1), rand.New(rand.NewPCG(1, 1))
	count := make(map[string]int)
	words := 0
	for words < 200000 {
		// Only whole words: the last one of a message may be cut.
		w := strings.Fields(x.body(rng))
		for _, word := range w[:len(w)-1] {
			count[word]++
			words++
		}
	}
	// The harmonic number of the vocabulary, which the shares are in.
	h := math.Log(vocabulary) + 0.5772
	near(t, "the most frequent word", float64(count[x.words[0]])/float64(words), 1/h, 0.1)
	near(t, "the tenth", float64(count[x.words[9]])/float64(words), 0.1/h, 0.15)
}
