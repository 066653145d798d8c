package disk

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// No more are at work than there may be, nobody is left out, and who has had its
// turn waits for those who came meanwhile.
func TestTurnsAreTakenInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &turnstile{most: 2}
		var inside, most atomic.Int32
		var done [5]atomic.Int32
		var all sync.WaitGroup
		for n := range done {
			all.Go(func() {
				var mine Turn
				defer s.end(&mine)
				for range 100 {
					s.take(&mine)
					if now := inside.Add(1); now > most.Load() {
						most.Store(now)
					}
					time.Sleep(turn)
					inside.Add(-1)
					if done[n].Add(1) == 50 {
						for o := range done {
							if d := done[o].Load(); d < 25 || d > 75 {
								t.Errorf("when %d had 50 turns, %d had %d", n, o, d)
							}
						}
					}
				}
			})
		}
		all.Wait()
		if most.Load() != 2 {
			t.Errorf("%d were at work at once, want 2", most.Load())
		}
		if len(s.inside) != 0 || len(s.queue) != 0 {
			t.Errorf("in the end %d are inside and %d wait", len(s.inside), len(s.queue))
		}
	})
}

// Who does not come back, as it waits for what another one does, loses its turn to
// that one, and waits when it does come back.
func TestTurnIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &turnstile{most: 1}
		var stuck, other Turn
		s.take(&stuck)
		began := time.Now()
		s.take(&other)
		if took := time.Since(began); took <= lease || took > 3*lease {
			t.Errorf("it took %s until the turn was lost, want a bit more than %s", took, lease)
		}
		back := make(chan struct{})
		go func() {
			s.take(&stuck)
			close(back)
		}()
		synctest.Wait()
		select {
		case <-back:
			t.Error("two are at work where one may be")
		default:
		}
		s.end(&other)
		<-back
		s.end(&stuck)
	})
}

// Urgent work never waits, and what is not urgent pauses for it.
func TestUrgentTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &turnstile{most: 1}
		var calm Turn
		urgent := Turn{urgent: true}
		s.take(&calm)
		began := time.Now()
		s.take(&urgent)
		s.take(&urgent)
		if took := time.Since(began); took != 0 {
			t.Errorf("urgent work waited %s", took)
		}
		paused := make(chan struct{})
		go func() {
			s.take(&calm)
			close(paused)
		}()
		synctest.Wait()
		select {
		case <-paused:
			t.Error("work that is not urgent goes on beside urgent work")
		default:
		}
		s.end(&urgent)
		<-paused
	})
}

// Tables wait for their turn, but for those that are flushed; files that are no tables
// don't.
func TestTablesTakeTurns(t *testing.T) {
	for _, file := range []struct {
		name  string
		kind  vfs.DiskWriteCategory
		waits bool
	}{
		{"000001.sst", "pebble-compaction", true},
		{"000002.blob", "pebble-compaction", true},
		{"000003.sst", "pebble-memtable-flush", false},
		{"000004.log", "pebble-wal", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			if err := mem.MkdirAll("store", 0o700); err != nil {
				t.Fatal(err)
			}
			f, err := New(mem, "store", Options{}).Create("store/"+file.name, file.kind)
			if err != nil {
				t.Fatal(err)
			}
			others := make([]Turn, turns.most)
			for i := range others {
				others[i].Take()
			}
			began := time.Now()
			if _, err := f.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began) > 0; waited != file.waits {
				t.Errorf("%s, %s: it waited is %t, want %t", file.name, file.kind, waited, file.waits)
			}
			for i := range others {
				others[i].End()
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if n := len(turns.inside); n != 0 {
				t.Errorf("%s: %d have a turn still when it is closed", file.name, n)
			}
		})
	}
}

// Gentle work takes its part of the processors.
func TestGentleTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mine Turn
		defer mine.End()
		began := time.Now()
		const pieces = 100
		for range pieces {
			mine.TakeGently()
			time.Sleep(turn)
		}
		mine.TakeGently()
		if took, want := time.Since(began), pieces*turn*time.Duration(max(1, gently/processors)); took != want {
			t.Errorf("%d pieces of %s took %s, want %s", pieces, turn, took, want)
		}
	})
}
