package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Head is the tree of one store at a moment.
type Head struct {
	Store string
	Size  int64 // leaves
	Root  tlog.Hash
}

// Checkpoint is the trees of all stores at a moment. As the text of a signed note
// (golang.org/x/mod/sumdb/note) it is
//
//	mamlog audit checkpoint
//	2026-11-27T04:10:00.000Z
//	archive 4 <root in base64>
//	main 123 <root in base64>
//
// with a line a store, in the order of their names.
type Checkpoint struct {
	Time  time.Time // UTC, whole milliseconds
	Heads []Head
}

const (
	checkpointTitle = "mamlog audit checkpoint"
	timeLayout      = "2006-01-02T15:04:05.000Z"
)

// Head returns the tree of a store.
func (c Checkpoint) Head(store string) (Head, bool) {
	n := slices.IndexFunc(c.Heads, func(h Head) bool { return h.Store == store })
	if n < 0 {
		return Head{}, false
	}
	return c.Heads[n], true
}

// Same tells whether the trees of both are the same.
func (c Checkpoint) Same(other Checkpoint) bool { return slices.Equal(c.Heads, other.Heads) }

// Sign returns c as a signed note.
func (c Checkpoint) Sign(s note.Signer) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", checkpointTitle, c.Time.UTC().Format(timeLayout))
	heads := slices.SortedFunc(slices.Values(c.Heads), func(a, b Head) int { return strings.Compare(a.Store, b.Store) })
	for _, h := range heads {
		fmt.Fprintf(&b, "%s %d %s\n", h.Store, h.Size, base64.StdEncoding.EncodeToString(h.Root[:]))
	}
	signed, err := note.Sign(&note.Note{Text: b.String()}, s)
	if err != nil {
		return nil, fmt.Errorf("sign a checkpoint: %w", err)
	}
	return signed, nil
}

// OpenCheckpoint reads a signed note, which v must have signed.
func OpenCheckpoint(signed []byte, v note.Verifier) (Checkpoint, error) {
	n, err := note.Open(signed, note.VerifierList(v))
	var stranger *note.UnverifiedNoteError
	var forged *note.InvalidSignatureError
	switch {
	case errors.As(err, &stranger):
		return Checkpoint{}, fmt.Errorf("the checkpoint is not signed with the key %s+%08x", v.Name(), v.KeyHash())
	case errors.As(err, &forged):
		return Checkpoint{}, errors.New("the signature of the checkpoint is not right: it was changed, or signed with another key")
	case err != nil:
		return Checkpoint{}, fmt.Errorf("it is not a signed checkpoint: %w", err)
	}
	return parseCheckpoint(n.Text)
}

var errNoCheckpoint = errors.New("what is signed is not a checkpoint of an audit history")

func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 || lines[0] != checkpointTitle {
		return c, errNoCheckpoint
	}
	if c.Time, err = time.Parse(timeLayout, lines[1]); err != nil {
		return c, errNoCheckpoint
	}
	for _, line := range lines[2:] {
		f := strings.Split(line, " ")
		if len(f) != 3 {
			return c, errNoCheckpoint
		}
		h := Head{Store: f[0]}
		if h.Size, err = strconv.ParseInt(f[1], 10, 64); err != nil || h.Size < 0 {
			return c, errNoCheckpoint
		}
		if h.Root, err = tlog.ParseHash(f[2]); err != nil {
			return c, errNoCheckpoint
		}
		if n := len(c.Heads); n > 0 && c.Heads[n-1].Store >= h.Store {
			return c, errNoCheckpoint
		}
		c.Heads = append(c.Heads, h)
	}
	return c, nil
}

// Tree is the tree of one store, whose hashes somebody keeps.
type Tree interface {
	tlog.HashReader
	Size() (int64, error) // leaves; it only grows
}

// HeadOf reads the tree as it is now.
func HeadOf(store string, t Tree) (h Head, err error) {
	h.Store = store
	if h.Size, err = t.Size(); err == nil {
		h.Root, err = tlog.TreeHash(h.Size, t)
	}
	if err != nil {
		err = fmt.Errorf("read the audit tree of %s: %w", store, err)
	}
	return h, err
}

// Check tells what is wrong with the tree t of the store that h is of: it must have grown
// from h. Empty: nothing. An error means that it can't be told.
func (h Head) Check(t Tree) (wrong string, err error) {
	size, err := t.Size()
	switch {
	case err != nil:
		return "", err
	case size < h.Size:
		return fmt.Sprintf("the log of %s has %d audit records, and had %d", h.Store, size, h.Size), nil
	}
	root, err := tlog.TreeHash(h.Size, t)
	if err == nil && root != h.Root {
		wrong = fmt.Sprintf("the first %d audit records in the log of %s are not those that there were", h.Size, h.Store)
	}
	return wrong, err
}
