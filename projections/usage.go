package projections

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"mamlog/log"
)

// Every message of an archive's row says how many bytes the stanzas have in its
// bucket, up to its own, as its ordinal says how many there are. So what an archive
// uses is a subtraction for each bucket.

// The numbers of the fields in a row's event that are read here.
const (
	fieldStanzaBytes protowire.Number = 13
	fieldBytesSoFar  protowire.Number = 14
)

// bytesSoFar reads it from the content of a message.
func bytesSoFar(content []byte) (uint64, error) {
	var r Row
	if err := r.read(ulid.ULID{}, "", content); err != nil {
		return 0, err
	}
	return r.number(fieldBytesSoFar)
}

// number is a number in the row's event, 0 if it isn't there.
func (r Row) number(of protowire.Number) (uint64, error) {
	for event := r.event; len(event) > 0; {
		field, typ, n := protowire.ConsumeTag(event)
		if n < 0 {
			return 0, errDamagedRow
		}
		event = event[n:]
		var v uint64
		switch {
		case field == of && typ == protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(event)
		case field == of && typ == protowire.VarintType:
			v, n = protowire.ConsumeVarint(event)
		default:
			n = protowire.ConsumeFieldValue(field, typ, event)
			field = 0
		}
		if n < 0 {
			return 0, errDamagedRow
		}
		if field == of {
			return v, nil
		}
		event = event[n:]
	}
	return 0, nil
}

// counted is how many bytes m counts for: those of the stanza that it had first.
func counted(m *log.MessageArchived) uint64 {
	if n := m.GetStanzaBytes(); n > 0 {
		return n
	}
	return uint64(len(m.GetStanza()))
}

// counted is how many bytes the row counts for.
func (r Row) counted() (uint64, error) {
	if n, err := r.number(fieldStanzaBytes); n > 0 || err != nil {
		return n, err
	}
	return uint64(len(r.Stanza)), nil
}

// Usage is what an archive holds.
type Usage struct {
	Messages uint64
	Bytes    uint64 // of their stanzas, as they were before any was retracted
}

// mark is a place in an archive: what there is in the bucket up to it.
type mark struct{ ordinal, bytes uint64 }

// mark is that of the last row of the bucket below id; zero if there is none.
func (sc *scan) mark(bucket uint32, id ulid.ULID) (m mark, err error) {
	if !sc.below(bucket, id) {
		return mark{}, sc.error()
	}
	m.ordinal = sc.ordinal()
	m.bytes, err = bytesSoFar(sc.chunk.content(sc.at))
	return m, err
}

func (sc *scan) usage(i interval) (u Usage, err error) {
	sp, ok := sc.buckets(i)
	if !ok {
		return u, nil
	}
	for b := sp.first; b <= sp.last; b++ {
		hi, err := sc.mark(b, i.hi)
		if err != nil {
			return u, err
		}
		if hi == (mark{}) {
			continue
		}
		lo, err := sc.mark(b, i.lo)
		if err != nil {
			return u, err
		}
		u.Messages, u.Bytes = u.Messages+hi.ordinal-lo.ordinal, u.Bytes+hi.bytes-lo.bytes
	}
	return u, nil
}

// Usage tells what the archive that q names holds, in all its bounds. It does not
// count messages.
func (s *Store) Usage(q Query) (u Usage, err error) {
	err = s.read(func(r *rows) error {
		sc, err := r.newScan(q.Class, q.Owner, "")
		if err != nil {
			return err
		}
		defer sc.close()
		u, err = sc.usage(sc.all(&q))
		return err
	})
	if err != nil {
		err = fmt.Errorf("find what the archive of %s uses: %w", q.Owner, err)
	}
	return u, err
}

// Surplus finds up to where the archive that q names has to be cut, so that it
// holds keep at most; ok is false if it holds no more than that. A zero field of
// keep is no bound.
func (s *Store) Surplus(q Query, keep Usage) (up ulid.ULID, ok bool, err error) {
	err = s.read(func(r *rows) error {
		sc, err := r.newScan(q.Class, q.Owner, "")
		if err != nil {
			return err
		}
		defer sc.close()
		all := sc.all(&q)
		total, err := sc.usage(all)
		if err != nil {
			return err
		}
		fits := func(u Usage) bool {
			return (keep.Messages == 0 || u.Messages <= keep.Messages) && (keep.Bytes == 0 || u.Bytes <= keep.Bytes)
		}
		if fits(total) {
			return nil
		}
		sp, _ := sc.buckets(all)
		counts, _, err := sc.counts(all, sp)
		if err != nil {
			return err
		}
		// The smallest number of messages that can go: what is left then fits.
		lo, hi := uint64(0), total.Messages-1 // the message of that index goes too
		for lo < hi {
			mid := lo + (hi-lo)/2
			id, err := sc.nth(all, sp, counts, mid)
			if err != nil {
				return err
			}
			left, err := sc.usage(all.after(id))
			if err != nil {
				return err
			}
			if fits(left) {
				hi = mid
			} else {
				lo = mid + 1
			}
		}
		up, err = sc.nth(all, sp, counts, lo)
		ok = true
		return err
	})
	if err != nil {
		err = fmt.Errorf("find the surplus of the archive of %s: %w", q.Owner, err)
	}
	return up, ok, err
}

// Owners yields the owners of the archives of the class, in order within each
// bucket and each once. It stops at the first error, which it yields.
func (s *Store) Owners(c log.Class) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := s.settleTail(); err != nil {
			yield("", fmt.Errorf("list the owners of archives: %w", err))
			return
		}
		seen := make(map[string]bool)
		from := bucketKey(c, 0)
		for from != nil {
			var owner string
			found := false
			err := s.read(func(r *rows) error {
				it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: end(bucketKey(c, 0)[:3])})
				if err != nil {
					return err
				}
				for ok := it.First(); ok && !found; {
					key := it.Key()
					if bucket := keyBucket(key); key[7] != partMessage {
						if next := end(bucketKey(c, bucket)); next != nil {
							ok = it.SeekGE(next)
							continue
						}
						break
					}
					rest := key[8:]
					owner = string(rest[:bytes.IndexByte(rest, 0)])
					from = end(bytes.Clone(key[:8+len(owner)+1]))
					found = true
				}
				return it.Close()
			})
			if err != nil {
				yield("", fmt.Errorf("list the owners of archives: %w", err))
				return
			}
			if !found {
				return
			}
			if !seen[owner] {
				seen[owner] = true
				if !yield(owner, nil) {
					return
				}
			}
		}
	}
}
