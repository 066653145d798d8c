package projections

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"golang.org/x/mod/sumdb/tlog"

	"mamlog/audit"
	"mamlog/log"
)

// Every record of the class log.Audit, whatever its event, is a leaf of the
// store's audit tree (package audit). The hashes of the tree are rows like any
// other: they follow from the log, and a record that was changed gives others.
// Neither a hash nor a leaf is ever written again.

func treeKey(index int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindTree}, uint64(index))
}

func leafKey(n int64) []byte { return binary.BigEndian.AppendUint64([]byte{kindLeaf}, uint64(n)) }

// leaf appends rec to the tree.
func (w *writer) leaf(rec log.Record) error {
	n := w.leaves
	hashes, err := tlog.StoredHashesForRecordHash(n, audit.LeafHash(rec.ID, audit.EventSum(rec.Stored)), tlog.HashReaderFunc(w.treeHashes))
	if err != nil {
		return fmt.Errorf("grow the audit tree: %w", err)
	}
	if w.hashes == nil {
		w.hashes = make(map[int64]tlog.Hash)
	}
	at := tlog.StoredHashIndex(0, n)
	for i, h := range hashes {
		w.hashes[at+int64(i)] = h
		if err := w.batch.Set(treeKey(at+int64(i)), h[:], nil); err != nil {
			return err
		}
	}
	w.leaves++
	return w.batch.Set(leafKey(n), rec.ID[:], nil)
}

// treeHashes also finds those that this batch has written.
func (w *writer) treeHashes(indexes []int64) ([]tlog.Hash, error) {
	return readHashes(indexes, func(index int64) (tlog.Hash, error) {
		if h, ok := w.hashes[index]; ok {
			return h, nil
		}
		return w.rows.treeHash(index)
	})
}

func readHashes(indexes []int64, read func(int64) (tlog.Hash, error)) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		var err error
		if hashes[i], err = read(index); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

func (r *rows) treeHash(index int64) (h tlog.Hash, err error) {
	v, err := r.get(treeKey(index))
	if errors.Is(err, pebble.ErrNotFound) || err == nil && len(v) != len(h) {
		err = errDamagedRow
	}
	copy(h[:], v)
	return h, err
}

func (r *rows) leafID(n int64) (id ulid.ULID, err error) {
	v, err := r.get(leafKey(n))
	if errors.Is(err, pebble.ErrNotFound) || err == nil && len(v) != len(id) {
		err = errDamagedRow
	}
	copy(id[:], v)
	return id, err
}

// loadLeaves counts the leaves that the rows have.
func (r *rows) loadLeaves() error {
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindLeaf}, UpperBound: []byte{kindLeaf + 1}})
	if err != nil {
		return err
	}
	if it.Last() && len(it.Key()) == len(leafKey(0)) {
		r.leaves = int64(binary.BigEndian.Uint64(it.Key()[1:])) + 1
	}
	return it.Close()
}

// AuditTree is the tree of the store's audit records. It implements audit.Tree.
type AuditTree struct{ s *Store }

// AuditTree returns the store's audit tree.
func (s *Store) AuditTree() AuditTree { return AuditTree{s} }

// Size is how many leaves the tree has now.
func (t AuditTree) Size() (n int64, err error) {
	err = t.s.read(func(r *rows) error {
		r.spanMu.RLock()
		defer r.spanMu.RUnlock()
		n = r.leaves
		return nil
	})
	return n, err
}

// ReadHashes implements tlog.HashReader.
func (t AuditTree) ReadHashes(indexes []int64) (hashes []tlog.Hash, err error) {
	err = t.s.read(func(r *rows) error { hashes, err = readHashes(indexes, r.treeHash); return err })
	return hashes, err
}

// Find returns the index of the leaf that the record with that id is; ok is
// false if there is none.
func (t AuditTree) Find(id ulid.ULID) (n int64, ok bool, err error) {
	err = t.s.read(func(r *rows) error {
		r.spanMu.RLock()
		size := r.leaves
		r.spanMu.RUnlock()
		var failed error
		n = int64(sort.Search(int(size), func(i int) bool {
			leaf, err := r.leafID(int64(i))
			failed = errors.Join(failed, err)
			return leaf.Compare(id) >= 0
		}))
		if failed != nil || n == size {
			return failed
		}
		leaf, err := r.leafID(n)
		ok = leaf == id
		return err
	})
	return n, ok, err
}
