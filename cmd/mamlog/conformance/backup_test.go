package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestBackupUnderLoad backs up a server whose clients write as fast as they can,
// again and again, and restores each backup elsewhere: what was acknowledged before
// the backup began is there, once, in order, and check finds nothing wrong.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	backups := 2
	if Nightly() {
		backups = 20
	}
	s := startServer(t, "")
	addUsers(t, s, "juliet", "romeo")
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(backups)*patience)
	defer cancel()
	juliet, err := s.Dial(ctx, "juliet", "balcony")
	if err != nil {
		t.Fatal(err)
	}
	defer juliet.Drop()
	romeo, err := s.Dial(ctx, "romeo", "orchard")
	if err != nil {
		t.Fatal(err)
	}
	defer romeo.Drop()

	var flowing sync.Mutex // held while somebody sends, and while a backup is restored
	var mu sync.Mutex      // guards got
	var got []killed
	more := make(chan int, 1) // how many there are
	ahead := make(chan struct{}, 32)
	done := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		for i := 0; ; i++ {
			select {
			case ahead <- struct{}{}:
			case <-done:
				return
			}
			flowing.Lock()
			err := romeo.Send(fmt.Sprintf("<message to='%s' type='chat'><body>message %d</body></message>", juliet.Bare, i))
			flowing.Unlock()
			if err != nil {
				return
			}
		}
	})
	both.Go(func() {
		for {
			e, err := juliet.Next()
			if err != nil {
				return
			}
			if e.Name.Local != "message" || e.Attr("type") != "chat" {
				continue
			}
			id, _ := StanzaID(e, juliet.Bare)
			mu.Lock()
			got = append(got, killed{id, e.Child("body").Content()})
			n := len(got)
			mu.Unlock()
			<-ahead
			select {
			case <-more:
			default:
			}
			more <- n
		}
	})
	defer both.Wait()
	defer juliet.Drop()
	defer close(done)
	for n := range backups {
		for target := n*200 + 1 + rand.IntN(200); <-more < target; {
		}
		mu.Lock()
		received := slices.Clone(got)
		mu.Unlock()
		dir := filepath.Join(t.TempDir(), "backup")
		if _, err := s.Run(ctx, "", "backup", dir); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Run(ctx, "", "backup", dir); err == nil {
			t.Error("a backup was made in the place of another")
		}
		restoreUnder(t, ctx, &flowing, dir, n, received)
	}
	mu.Lock()
	n := len(got)
	mu.Unlock()
	Figures(t, "%d backups and restores while %d messages were received", backups, n)
}

// restoreUnder restores the backup in dir elsewhere while it holds flowing, and
// looks for what was received before.
func restoreUnder(t *testing.T, ctx context.Context, flowing *sync.Mutex, dir string, round int, received []killed) {
	t.Helper()
	flowing.Lock()
	defer flowing.Unlock()
	restored, err := NewServer(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := restored.Run(ctx, "", "restore", dir); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	if _, err := restored.Run(ctx, "", "restore", dir); err == nil {
		t.Error("a backup was restored over what is there")
	}
	if err := restored.Start(); err != nil {
		t.Fatal(err)
	}
	checkReceipts(t, restored, round, "juliet", "", received)
	if err := restored.Stop(); err != nil {
		t.Fatal(err)
	}
}
