package bench

import (
	"math"
	"math/rand/v2"
	"sort"
	"strings"
)

// How long messages are: the logarithm of the number of letters is normally
// distributed with these parameters. ProcessOne fitted them to 474,562 messages
// from the archive of an ejabberd server ("Message Archiving Benchmark: How Many
// Letters Are in Messages?", process-one.net/blog): median 18 letters, mean 40.
const (
	lettersMu    = 2.83
	lettersSigma = 1.15
	maxLetters   = 5000
)

// How messages are spread over contacts: the contact of rank r gets a share that
// is proportional to r^-contactZipf. That few contacts get most messages, in a
// shape that hardly differs between people, is from Saramäki et al., "Persistence
// of social signatures in human communication" (PNAS 111:942, 2014). The exponent
// gives the first five of fifty contacts 64 %, which is what one user of Jabber
// counted in his archive of 15,028 messages ("IM Correspondents of the Year",
// scott.yang.id.au, 2004).
const (
	contacts    = 50
	contactZipf = 1.25
)

// Words are drawn by Zipf's law from a vocabulary of made-up words: so the text
// can be compressed about as much as real text can.
const vocabulary = 20000

// text makes message bodies. It is not changed once made.
type text struct {
	words []string
	rank  []uint16 // of words, by quantile
}

// english are letters by their frequency in English, in thousandths.
var english = map[byte]int{
	'e': 127, 't': 91, 'a': 82, 'o': 75, 'i': 70, 'n': 67, 's': 63, 'h': 61, 'r': 60, 'd': 43, 'l': 40, 'c': 28, 'u': 28,
	'm': 24, 'w': 24, 'f': 22, 'g': 20, 'y': 20, 'p': 19, 'b': 15, 'v': 10, 'k': 8,
}

func newText(seed uint64) *text {
	rng := rand.New(rand.NewPCG(seed, 0x7465787473))
	var letters []byte
	for c := byte('a'); c <= 'z'; c++ {
		for range english[c] {
			letters = append(letters, c)
		}
	}
	t := &text{rank: make([]uint16, 1<<16)}
	seen := make(map[string]bool)
	for len(t.words) < vocabulary {
		// Frequent words are short.
		n := 1 + int(math.Log2(float64(len(t.words)+2))*0.45) + rng.IntN(4)
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[rng.IntN(len(letters))]
		}
		if w := string(b); !seen[w] {
			seen[w] = true
			t.words = append(t.words, w)
		}
	}
	cumulated := zipf(vocabulary, 1)
	for i := range t.rank {
		t.rank[i] = uint16(rankAt(cumulated, (float64(i)+0.5)/float64(len(t.rank))))
	}
	return t
}

// zipf returns the cumulated shares of n ranks.
func zipf(n int, exponent float64) []float64 {
	shares := make([]float64, n)
	sum := 0.0
	for i := range shares {
		sum += math.Pow(float64(i+1), -exponent)
		shares[i] = sum
	}
	for i := range shares {
		shares[i] /= sum
	}
	return shares
}

// rankAt returns the rank that the quantile q falls on.
func rankAt(cumulated []float64, q float64) int {
	return min(sort.SearchFloat64s(cumulated, q), len(cumulated)-1)
}

// letters draws the length of a message.
func letters(rng *rand.Rand) int {
	n := math.Round(math.Exp(lettersMu + lettersSigma*rng.NormFloat64()))
	return int(min(max(n, 1), maxLetters))
}

// body draws a message: lower-case words with single blanks between, so that it
// is the same in XML, in SQL, and everywhere else.
func (t *text) body(rng *rand.Rand) string {
	n := letters(rng)
	var b strings.Builder
	b.Grow(n + 20)
	for b.Len() < n {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.words[t.rank[rng.Uint32()>>16]])
	}
	s := b.String()[:n]
	if n > 1 && s[n-1] == ' ' {
		s = s[:n-1] + "e"
	}
	return s
}
