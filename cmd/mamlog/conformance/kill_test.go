package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// killed is what one round's recipient saw before the server died.
type killed struct {
	id, body string
}

// TestKill9 kills the server at random moments of an exchange, ten times over
// one store, or a hundred times in the long form. Whatever a recipient was sent with a stanza-id is in the archive
// after the restart under that id, in order, once: the id is a receipt.
//
// MAMLOG_SEED replays a run: the moments depend on it, and on the machine.
func TestKill9(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MAMLOG_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MAMLOG_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 313))

	s := startServer(t, "")
	addUsers(t, s, "juliet", "romeo")
	all := map[string][]killed{} // over all rounds, by recipient, in order of arrival
	since := map[string]string{} // the last message that the round before has seen in each archive
	rounds := 10
	if Nightly() {
		rounds = 100
	}
	for round := range rounds {
		// From before the first batch is on the disk to well into the flow.
		after := 1 + rng.IntN(600)
		got := exchangeUntilKilled(t, s, round, after, time.Duration(rng.IntN(5000))*time.Microsecond)
		if err := s.Start(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for user, received := range got {
			all[user] = append(all[user], received...)
			since[user] = checkReceipts(t, s, round, user, since[user], received)
		}
		if t.Failed() {
			return
		}
	}
	for user, received := range all {
		checkReceipts(t, s, rounds, user, "", received)
	}
	Figures(t, "%d rounds, received with an id: %d by juliet, %d by romeo", rounds, len(all["juliet"]), len(all["romeo"]))
}

// exchangeUntilKilled lets the two send to each other as fast as they can, kills
// the server soon after juliet has had so many messages, and returns what each
// had.
func exchangeUntilKilled(t *testing.T, s *Server, round, after int, delay time.Duration) map[string][]killed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	peers := map[string]*Client{}
	for user, resource := range map[string]string{"juliet": "balcony", "romeo": "orchard"} {
		c, err := s.Dial(ctx, user, resource)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Drop()
		peers[user] = c
	}
	// Each may be a window ahead of the other's receipts: enough to keep the
	// server busy, and no more than that to read back afterwards.
	const window = 256
	dead := make(chan struct{})
	reached := make(chan struct{})
	var speakers, listeners sync.WaitGroup
	var mu sync.Mutex // guards got
	got := map[string][]killed{}
	for _, pair := range [][2]string{{"romeo", "juliet"}, {"juliet", "romeo"}} {
		from, to := pair[0], pair[1]
		ahead := make(chan struct{}, window)
		speakers.Go(func() {
			for i := 0; ; i++ {
				select {
				case ahead <- struct{}{}:
				case <-dead:
					return
				}
				err := peers[from].Send(fmt.Sprintf("<message to='%s' type='chat'><body>%s, round %d, message %d</body></message>",
					peers[to].Bare, from, round, i))
				if err != nil {
					return // the server is gone, as it should be
				}
			}
		})
		listeners.Go(func() {
			// Until the end of the stream: what the kernel had taken for the
			// recipient before the server died has been sent.
			for n := 0; ; {
				e, err := peers[to].Next()
				if err != nil {
					return
				}
				if e.Name.Local != "message" || e.Attr("type") != "chat" {
					continue
				}
				id, ids := StanzaID(e, peers[to].Bare)
				if ids != 1 {
					t.Errorf("round %d: a live message carries %d ids by its archive, want 1: %s", round, ids, e)
				}
				mu.Lock()
				got[to] = append(got[to], killed{id, e.Child("body").Content()})
				mu.Unlock()
				select {
				case <-ahead:
				default: // one too many, which the archive will tell
				}
				if n++; to == "juliet" && n == after {
					close(reached)
				}
			}
		})
	}
	select {
	case <-reached:
	case <-time.After(2 * patience):
		t.Errorf("round %d: juliet has not had %d messages", round, after)
	}
	// Not to wait for anything, but to die in the middle of something else.
	time.Sleep(delay)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	close(dead)
	listeners.Wait()
	speakers.Wait()
	return got
}

// checkReceipts reads an archive, from after the message since, and looks for
// all that its owner had received. It returns the id of the last message.
func checkReceipts(t *testing.T, s *Server, round int, user, since string, received []killed) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := Dial(ctx, DialOptions{Addr: s.Addr, Domain: Domain, User: user, Password: Password, Resource: "reader"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	words := ""
	if since != "" {
		words = "after-id=" + since
	}
	archive, err := c.Walk(words, 50)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	place := map[string]int{}
	for i, m := range archive {
		if before, ok := place[m.ID]; ok {
			t.Errorf("round %d: id %s is at %d and at %d", round, m.ID, before, i)
		}
		place[m.ID] = i
	}
	bodies := map[string]int{}
	for _, m := range archive {
		bodies[m.Body()]++
	}
	last := -1
	for _, r := range received {
		i, ok := place[r.id]
		switch {
		case !ok:
			t.Errorf("round %d: %q was received as %s and is lost", round, r.body, r.id)
		case archive[i].Body() != r.body:
			t.Errorf("round %d: %s was received as %q and is now %q", round, r.id, r.body, archive[i].Body())
		case i <= last:
			t.Errorf("round %d: %q is out of order", round, r.body)
		case bodies[r.body] != 1:
			t.Errorf("round %d: %q is in the archive %d times", round, r.body, bodies[r.body])
		}
		last = max(last, i)
	}
	if len(archive) == 0 {
		return since
	}
	return archive[len(archive)-1].ID
}
