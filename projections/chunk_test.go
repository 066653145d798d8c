package projections

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"mamlog/log"
)

// The merge operator is associative, whichever way the engine goes about it.
func TestJoining(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		var values [][]byte
		for range 1 + rng.IntN(40) {
			size := rng.IntN(2000)
			if rng.IntN(20) == 0 {
				size = rng.IntN(100 << 10)
			}
			values = append(values, bytes.Repeat([]byte{byte(rng.Int())}, size))
		}
		want := bytes.Join(values, nil)
		older, err := joining.Merge(nil, values[len(values)-1])
		if err != nil {
			t.Fatal(err)
		}
		newer, err := joining.Merge(nil, values[0])
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n < len(values); n++ {
			if err := older.MergeOlder(values[len(values)-1-n]); err != nil {
				t.Fatal(err)
			}
			if err := newer.MergeNewer(values[n]); err != nil {
				t.Fatal(err)
			}
		}
		for way, j := range map[string]interface{ MergeOlder([]byte) error }{"older": older, "newer": newer} {
			got, closer, err := j.(*joiner).Finish(true)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d, with %s values: %d bytes, %v; want %d", round, way, len(got), err, len(want))
			}
			if err := closer.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzChunk(f *testing.F) {
	var value []byte
	for n := range 3 {
		value = appendMessage(value, ulid.ULID{byte(n)}, uint64(n), fmt.Appendf(nil, "content %d", n))
	}
	f.Add(value)
	f.Add(value[:20])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, value []byte) {
		var c chunk
		if err := c.read(value); err != nil {
			if c.len() != 0 {
				t.Error("messages of a damaged chunk")
			}
			return
		}
		for n := range c.len() {
			id, content := c.id(n), c.content(n)
			again := appendMessage(nil, id, c.ordinal(n), content)
			if c.compare(n, id) != 0 || !bytes.HasSuffix(again, content) {
				t.Errorf("message %d is %s %q", n, id, content)
			}
			var same chunk
			if err := same.read(again); err != nil || same.len() != 1 || same.id(0) != id || same.ordinal(0) != c.ordinal(n) || !bytes.Equal(same.content(0), content) {
				t.Errorf("message %d, %s, is read otherwise from %x: %v", n, id, again, err)
			}
			if !bytes.Equal(c.value[len(c.value)-len(c.rest(n)):], c.rest(n)) || len(c.rest(n)) <= len(content) {
				t.Errorf("from message %d on there are %d bytes", n, len(c.rest(n)))
			}
		}
	})
}

// However long the messages, a row has one long one at most.
func TestChunksAreBounded(t *testing.T) {
	l, s, c := openBoth(t, vfs.NewMem(), nil, Options{})
	defer s.Close()
	defer l.Close()
	for n := range 3 * chunkMessages {
		e := &log.MessageArchived{Owner: "a@h", Peer: "b@h", Stanza: bytes.Repeat([]byte("x"), 100+n%2*(100<<10))}
		if _, err := l.AppendWait(context.Background(), log.Entry{Class: c, Event: &log.Event{Kind: &log.Event_Message{Message: e}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.settleTail(); err != nil {
		t.Fatal(err)
	}
	it, err := s.rows.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindBucket}})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	rows := 0
	for ok := it.First(); ok; ok = it.Next() {
		if rows++; len(it.Value()) > 101<<10 {
			t.Errorf("a row has %d bytes", len(it.Value()))
		}
	}
	if want := 2 * (3*chunkMessages/2 + 3); rows != want {
		t.Errorf("%d rows, want %d", rows, want)
	}
}
