package conformance

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const bookMessages = 2000

// bookLines reads so many lines of a real book: text that nobody made up for
// the test, with its own lengths and punctuation.
func bookLines(t *testing.T, n int) []string {
	t.Helper()
	NeedDebian(t, "bible-kjv", "bible-kjv-text")
	out, err := exec.Command("bible", "-f", "Gen1:1-Lev27:34").Output()
	if err != nil {
		t.Fatalf("reading the book: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < n {
		t.Fatalf("the book gave %d lines, want %d", len(lines), n)
	}
	return lines[:n]
}

// TestBook is the acceptance test: two clients nobody here wrote exchange 2,000
// messages, and every one comes back by paging in both archives, in order,
// once, with the id that the live stanza carried.
func TestBook(t *testing.T) {
	t.Parallel()
	NeedDebian(t, "python3-slixmpp")
	text := bookLines(t, bookMessages)
	s := startServer(t, "")
	addUsers(t, s, "juliet", "romeo")

	// They take turns of 1 to 40 lines: long enough for the server to batch,
	// and with pauses in which each waits for the other.
	seed := uint64(313)
	rng := rand.New(rand.NewPCG(seed, 0))
	var lines [][2]string
	who, other := "romeo", "juliet"
	for len(lines) < len(text) {
		for range min(1+rng.IntN(40), len(text)-len(lines)) {
			lines = append(lines, [2]string{who, text[len(lines)]})
		}
		who, other = other, who
	}
	path := filepath.Join(t.TempDir(), "lines.json")
	data, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	events := runPython(t, s, "slixmpp_book.py", "juliet", "romeo", Password, path)

	for _, name := range []string{"juliet", "romeo"} {
		// Line by line of the book: the id this reader's clients were shown,
		// on the message itself or, for what was sent, on its carbon copy.
		shown := map[string][]string{}
		for _, e := range pick(events, "live", name) {
			if len(e.IDs) != 1 {
				t.Fatalf("%s: %q, %s, carried %d ids of the own archive, want 1", name, e.Body, e.Kind, len(e.IDs))
			}
			shown[e.Kind] = append(shown[e.Kind], e.IDs[0])
		}
		var ids []string
		for _, l := range lines {
			kind := "received"
			if l[0] == name {
				kind = "sent"
			}
			if len(shown[kind]) == 0 {
				t.Fatalf("%s: fewer messages %s than the book has lines", name, kind)
			}
			ids = append(ids, shown[kind][0])
			shown[kind] = shown[kind][1:]
		}
		if n := len(shown["received"]) + len(shown["sent"]); n > 0 {
			t.Fatalf("%s: %d messages more than the book has lines", name, n)
		}
		walks := pick(events, "walk", name)
		if len(walks) != 2 {
			t.Fatalf("%s walked %d times, want 2", name, len(walks))
		}
		for _, w := range walks {
			checkWalk(t, name+", "+w.Direction, w.Items, text, ids)
		}
	}
}
