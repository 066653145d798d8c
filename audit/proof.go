package audit

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The kinds of proofs: the first field of their files.
const (
	InclusionKind   = "mamlog audit inclusion proof"
	ConsistencyKind = "mamlog audit consistency proof"
)

// Inclusion proves that an event is in the history that a checkpoint signs
// (RFC 6962 section 2.1.1). Its JSON stands alone: only the public key is needed
// beside it.
type Inclusion struct {
	Kind  string    `json:"kind"`
	Store string    `json:"store"`
	Index int64     `json:"index"` // from 0
	ID    ulid.ULID `json:"id"`
	Sum   tlog.Hash `json:"event_sha256"`

	// Event is the event as the log has it (log/event.proto); absent where it
	// holds what verifies a password.
	Event []byte `json:"event,omitempty"`
	// Personal is what lies apart of the event, which has the hash of it; absent
	// where there is nothing, where it was erased, and where it verifies a password.
	Personal []byte `json:"personal,omitempty"`
	// Shown is the event for people. It proves nothing: who verifies decodes Event.
	Shown json.RawMessage `json:"shown"`

	Path       tlog.RecordProof `json:"path"`
	Checkpoint string           `json:"checkpoint"`
}

// ProveInclusion proves that the leaf n of a store's tree is in its head in c,
// which signed is the note of. The event is for the caller to fill in.
func ProveInclusion(c Checkpoint, signed []byte, store string, t Tree, n int64) (*Inclusion, error) {
	h, ok := c.Head(store)
	if !ok {
		return nil, fmt.Errorf("the checkpoint says nothing of the store %s", store)
	}
	path, err := tlog.ProveRecord(h.Size, n, t)
	if err != nil {
		return nil, fmt.Errorf("prove that an event is in the audit history: %w", err)
	}
	return &Inclusion{Kind: InclusionKind, Store: store, Index: n, Path: path, Checkpoint: string(signed)}, nil
}

// Verify checks p against the key and returns the checkpoint that vouches for it.
func (p *Inclusion) Verify(v note.Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint([]byte(p.Checkpoint), v)
	if err != nil {
		return c, err
	}
	if p.Event != nil && EventSum(p.Event) != p.Sum {
		return c, errors.New("the event is not the one that the proof is for")
	}
	h, ok := c.Head(p.Store)
	if !ok {
		return c, fmt.Errorf("the checkpoint says nothing of the store %q", p.Store)
	}
	if err := tlog.CheckRecord(p.Path, h.Size, h.Root, p.Index, LeafHash(p.ID, p.Sum)); err != nil {
		return c, fmt.Errorf("the event %s is not in the history that the checkpoint signs", p.ID)
	}
	return c, nil
}

// Consistency proves that the history that New signs begins with the one that Old
// signs (RFC 6962 section 2.1.2), in every store that Old names.
type Consistency struct {
	Kind   string                    `json:"kind"`
	Old    string                    `json:"old"`
	New    string                    `json:"new"`
	Stores map[string]tlog.TreeProof `json:"stores"`
}

// ProveConsistency proves that to has grown from from; the notes are theirs. It
// fails where that isn't so.
func ProveConsistency(from, to Checkpoint, oldNote, newNote []byte, trees map[string]Tree) (*Consistency, error) {
	p := &Consistency{Kind: ConsistencyKind, Old: string(oldNote), New: string(newNote), Stores: make(map[string]tlog.TreeProof)}
	for _, old := range from.Heads {
		h, ok := to.Head(old.Store)
		t := trees[old.Store]
		if !ok || t == nil {
			return nil, fmt.Errorf("the audit history of the store %s is gone", old.Store)
		}
		if wrong, err := old.Check(t); err != nil || wrong != "" {
			return nil, errors.Join(err, errors.New(wrong))
		}
		if old.Size == 0 {
			continue // every tree begins so
		}
		proof, err := tlog.ProveTree(h.Size, old.Size, t)
		if err != nil {
			return nil, fmt.Errorf("prove that the audit history of %s has only grown: %w", old.Store, err)
		}
		p.Stores[old.Store] = proof
	}
	return p, nil
}

// Verify checks p against the key and returns the checkpoints that it links.
func (p *Consistency) Verify(v note.Verifier) (from, to Checkpoint, err error) {
	if from, err = OpenCheckpoint([]byte(p.Old), v); err != nil {
		return from, to, fmt.Errorf("the old checkpoint: %w", err)
	}
	if to, err = OpenCheckpoint([]byte(p.New), v); err != nil {
		return from, to, fmt.Errorf("the new checkpoint: %w", err)
	}
	for _, old := range from.Heads {
		h, ok := to.Head(old.Store)
		switch {
		case !ok:
			return from, to, fmt.Errorf("the audit history of the store %s is gone", old.Store)
		case old.Size == 0:
			continue
		}
		if err := tlog.CheckTree(p.Stores[old.Store], h.Size, h.Root, old.Size, old.Root); err != nil {
			return from, to, fmt.Errorf("the audit history of the store %s has not just grown: it was changed", old.Store)
		}
	}
	return from, to, nil
}
