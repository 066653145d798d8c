package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/mod/sumdb/tlog"
)

// memory is a tree in memory.
type memory struct {
	size   int64
	hashes []tlog.Hash
}

func (m *memory) Size() (int64, error) { return m.size, nil }

func (m *memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(m.hashes)) {
			return nil, errors.New("no such hash")
		}
		out[i] = m.hashes[index]
	}
	return out, nil
}

func (m *memory) add(t testing.TB, events ...string) {
	t.Helper()
	for _, e := range events {
		h, err := tlog.StoredHashesForRecordHash(m.size, LeafHash(eventID(m.size), EventSum([]byte(e))), m)
		if err != nil {
			t.Fatal(err)
		}
		m.hashes, m.size = append(m.hashes, h...), m.size+1
	}
}

func eventID(n int64) (id ulid.ULID) { id[15] = byte(n); return id }

// fixture is a book, and the trees of two stores.
type fixture struct {
	*testing.T
	book  *Book
	trees map[string]*memory
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	b, err := OpenBook(filepath.Join(t.TempDir(), "audit"), "mamlog/test.example")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, b, map[string]*memory{"main": {}, "archive": {}}, time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC)}
	f.trees["main"].add(t, "one", "two", "three", "four", "five")
	return f
}

func (f *fixture) checkpoint() (Checkpoint, []byte) {
	f.Helper()
	f.now = f.now.Add(time.Hour)
	c := Checkpoint{Time: f.now}
	for name, tree := range f.trees {
		h, err := HeadOf(name, tree)
		if err != nil {
			f.Fatal(err)
		}
		c.Heads = append(c.Heads, h)
	}
	signed, err := c.Sign(f.book.Signer())
	if err != nil {
		f.Fatal(err)
	}
	if c, err = OpenCheckpoint(signed, f.book.Verifier()); err != nil {
		f.Fatal(err)
	}
	return c, signed
}

func (f *fixture) asTrees() map[string]Tree {
	m := make(map[string]Tree)
	for name, t := range f.trees {
		m[name] = t
	}
	return m
}

func TestInclusion(t *testing.T) {
	f := newFixture(t)
	c, signed := f.checkpoint()
	for n, event := range []string{"one", "two", "three", "four", "five"} {
		p, err := ProveInclusion(c, signed, "main", f.trees["main"], int64(n))
		if err != nil {
			t.Fatal(err)
		}
		p.ID, p.Event, p.Sum = eventID(int64(n)), []byte(event), EventSum([]byte(event))
		if _, err := p.Verify(f.book.Verifier()); err != nil {
			t.Errorf("%s: %v", event, err)
		}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		for what, damage := range map[string]func(*Inclusion){
			"another event":      func(p *Inclusion) { p.Event = []byte("six") },
			"another sum":        func(p *Inclusion) { p.Event, p.Sum = []byte("six"), EventSum([]byte("six")) },
			"only another sum":   func(p *Inclusion) { p.Event, p.Sum[3] = nil, p.Sum[3]^1 },
			"another id":         func(p *Inclusion) { p.ID[0] ^= 1 },
			"another place":      func(p *Inclusion) { p.Index++ },
			"a negative place":   func(p *Inclusion) { p.Index = -1 },
			"another store":      func(p *Inclusion) { p.Store = "archive" },
			"no store":           func(p *Inclusion) { p.Store = "" },
			"a shorter path":     func(p *Inclusion) { p.Path = p.Path[1:] },
			"another path":       func(p *Inclusion) { p.Path[0][0] ^= 1 },
			"another checkpoint": func(p *Inclusion) { p.Checkpoint = strings.Replace(p.Checkpoint, "main 5", "main 6", 1) },
			"another time":       func(p *Inclusion) { p.Checkpoint = strings.Replace(p.Checkpoint, "2026", "2025", 1) },
			"no signature":       func(p *Inclusion) { p.Checkpoint, _, _ = strings.Cut(p.Checkpoint, "—") },
		} {
			var bad Inclusion
			if err := json.Unmarshal(b, &bad); err != nil {
				t.Fatal(err)
			}
			damage(&bad)
			if _, err := bad.Verify(f.book.Verifier()); err == nil {
				t.Errorf("%s: a proof with %s is believed", event, what)
			}
		}
	}
}

func TestConsistency(t *testing.T) {
	f := newFixture(t)
	v := f.book.Verifier()
	old, oldNote := f.checkpoint()
	f.trees["main"].add(t, "six", "seven")
	f.trees["archive"].add(t, "first")
	c, note := f.checkpoint()
	p, err := ProveConsistency(old, c, oldNote, note, f.asTrees())
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := p.Verify(v)
	if err != nil || !from.Same(old) || !to.Same(c) {
		t.Errorf("got %v, %v, %v", from, to, err)
	}
	if back, err := ProveConsistency(c, old, note, oldNote, f.asTrees()); err == nil {
		if _, _, err := back.Verify(v); err == nil {
			t.Error("the history is said to have shrunk")
		}
	}

	// Somebody rewrites the history, grows it, and has it signed once more.
	f.trees["main"] = &memory{}
	f.trees["main"].add(t, "one", "two", "THREE", "four", "five", "six", "seven")
	if _, err := ProveConsistency(old, c, oldNote, note, f.asTrees()); err == nil || !strings.Contains(err.Error(), "not those") {
		t.Errorf("a changed history can be proved: %v", err)
	}
	_, forged := f.checkpoint()
	for name, bad := range map[string]Consistency{
		"the old proof":  {Old: string(oldNote), New: string(forged), Stores: p.Stores},
		"no proof":       {Old: string(oldNote), New: string(forged)},
		"another's note": {Old: string(oldNote), New: strings.Replace(string(note), "main 7", "main 8", 1), Stores: p.Stores},
	} {
		if _, _, err := bad.Verify(v); err == nil {
			t.Errorf("%s: a changed history is believed", name)
		}
	}
	delete(f.trees, "archive")
	_, less := f.checkpoint()
	if _, _, err := (&Consistency{Old: string(note), New: string(less)}).Verify(v); err == nil || !strings.Contains(err.Error(), "archive is gone") {
		t.Errorf("a store that is gone is not missed: %v", err)
	}
}

// TestHeadCheck: what a checkpoint that was kept tells of the tree there is now.
func TestHeadCheck(t *testing.T) {
	f := newFixture(t)
	c, _ := f.checkpoint()
	h, _ := c.Head("main")
	tree := func(events ...string) *memory {
		m := &memory{}
		m.add(t, events...)
		return m
	}
	for _, x := range []struct {
		what, want string
		tree       *memory
	}{
		{"the same", "", tree("one", "two", "three", "four", "five")},
		{"grown", "", tree("one", "two", "three", "four", "five", "six")},
		{"shorter", "has 4 audit records, and had 5", tree("one", "two", "three", "four")},
		{"changed", "not those", tree("one", "2", "three", "four", "five")},
		{"swapped", "not those", tree("two", "one", "three", "four", "five")},
		{"inserted", "not those", tree("zero", "one", "two", "three", "four", "five")},
	} {
		got, err := h.Check(x.tree)
		if err != nil || (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s: got %q, %v; want %q", x.what, got, err, x.want)
		}
	}
}

func TestBook(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.book.dir, keyFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has the mode %v, %v", info.Mode(), err)
	}
	if _, note, err := f.book.Newest(); note != nil || err != nil {
		t.Errorf("there is a checkpoint from the start: %v", err)
	}
	var made []Checkpoint
	for range 3 {
		c, signed := f.checkpoint()
		if err := f.book.Keep(c, signed); err != nil {
			t.Fatal(err)
		}
		made = append(made, c)
	}
	again, err := OpenBook(f.book.dir, "another name")
	if err != nil || again.Key() != f.book.Key() {
		t.Fatalf("opened again the key is %v, %v; want %s", again, err, f.book.Key())
	}
	kept, err := again.Checkpoints()
	if err != nil || len(kept) != 3 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	for i, k := range kept {
		if k.Err != nil || !k.Checkpoint.Same(made[i]) || !k.Checkpoint.Time.Equal(made[i].Time) {
			t.Errorf("kept %+v, want %+v", k, made[i])
		}
	}
	if c, note, err := again.Newest(); note == nil || err != nil || !c.Time.Equal(made[2].Time) {
		t.Errorf("the newest is %v, %s, %v", c, note, err)
	}

	b, err := os.ReadFile(kept[1].File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept[1].File, []byte(strings.Replace(string(b), "main 5", "main 4", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if kept, err = again.Checkpoints(); err != nil || kept[0].Err != nil || kept[1].Err == nil || kept[2].Err != nil {
		t.Errorf("of %v, %v only the second was changed", kept, err)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(f.book.dir, "x"); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a key that others can read is used: %v", err)
	}
	if err := os.WriteFile(path, []byte("nonsense\n"), 0o600); err != nil || os.Chmod(path, 0o600) != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(f.book.dir, "x"); err == nil {
		t.Error("a damaged key is replaced in silence")
	}
	if entries, err := os.ReadDir(f.book.dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".new") }) {
		t.Errorf("files are left behind: %v, %v", entries, err)
	}
}

// FuzzVerify: whatever stands in a file, verifying it ends with a verdict.
func FuzzVerify(f *testing.F) {
	b, err := OpenBook(f.TempDir(), "mamlog/test.example")
	if err != nil {
		f.Fatal(err)
	}
	m := &memory{}
	m.add(f, "one", "two", "three")
	h, _ := HeadOf("main", m)
	c := Checkpoint{Time: time.UnixMilli(0), Heads: []Head{h}}
	signed, err := c.Sign(b.Signer())
	if err != nil {
		f.Fatal(err)
	}
	p, err := ProveInclusion(c, signed, "main", m, 1)
	if err != nil {
		f.Fatal(err)
	}
	p.ID, p.Sum = eventID(1), EventSum([]byte("two"))
	for _, v := range []any{p, Consistency{Old: string(signed), New: string(signed), Stores: map[string]tlog.TreeProof{"main": nil}}} {
		seed, _ := json.Marshal(v)
		f.Add(seed, fmt.Sprint(c.Heads))
	}
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		var i Inclusion
		if json.Unmarshal(file, &i) == nil {
			i.Checkpoint = string(signed) // past the signature, which nobody guesses
			if _, err := i.Verify(b.Verifier()); err == nil && (i.ID != p.ID || i.Sum != p.Sum) && i.Store == "main" && i.Index == 1 {
				t.Errorf("another event is believed: %s", file)
			}
		}
		var g Consistency
		if json.Unmarshal(file, &g) == nil {
			g.Old, g.New = string(signed), string(signed)
			_, _, _ = g.Verify(b.Verifier())
		}
		_, _ = parseCheckpoint(text)
	})
}
