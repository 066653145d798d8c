package integrations

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// resume takes up a stream of XEP-0198 whose connection was dropped.
func (s *site) resume(t *testing.T, old *conformance.Client, id string) *conformance.Client {
	t.Helper()
	_, resource, _ := strings.Cut(old.JID, "/")
	c, err := conformance.Dial(t.Context(), conformance.DialOptions{
		Addr: s.C2SAddr, Domain: s.Host, User: userOf(old), Password: conformance.Password, Resource: resource, Resume: id, Handled: old.Handled(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
	return c
}

// manage makes a client's stream one that can be resumed.
func manage(t *testing.T, c *conformance.Client) (id string) {
	t.Helper()
	id, err := c.Manage()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestResumedRecipient: what was sent while a connection was broken comes with
// the ids of the archive, and is there once.
func TestResumedRecipient(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		juliet, romeo := s.newcomer(t, "juliet", "balcony"), s.newcomer(t, "romeo", "orchard")
		id := manage(t, juliet)
		const n, rounds = 20, 3
		var got []received
		for round := range rounds {
			send(t, romeo, chat(juliet.JID, fmt.Sprint("before ", round), n))
			got = append(got, receive(t, juliet, juliet.Bare, n)...)
			juliet.Drop()
			send(t, romeo, chat(juliet.JID, fmt.Sprint("meanwhile ", round), n))
			next := s.resume(t, juliet, id)
			got = append(got, receive(t, next, juliet.Bare, n)...)
			juliet = next
		}
		if k.name == "ejabberd" {
			// What comes in the very moment of a resumption its mod_stream_mgmt sends
			// again later, behind what came after it, with an archive or without.
			slices.SortStableFunc(got, func(a, b received) int { return strings.Compare(a.id, b.id) })
		}
		var want []string
		for round := range rounds {
			want = slices.Concat(want, numbered(fmt.Sprint("before ", round), n), numbered(fmt.Sprint("meanwhile ", round), n))
		}
		if !slices.Equal(bodies(got), want) {
			t.Errorf("got %q", bodies(got))
		}
		checkStamped(t, "over resumed streams", got, archiveOf(t, juliet, ""))
	})
}

// TestReplacedResource: what a broken connection never acknowledged goes another
// way when its resource is bound anew. Whoever gets it then is told the id that it
// had at first, and it is archived once.
func TestReplacedResource(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		balcony, romeo := s.newcomer(t, "juliet", "balcony"), s.newcomer(t, "romeo", "orchard")
		balcony.NoAcks = true
		manage(t, balcony)
		const n = 5
		send(t, romeo, chat(balcony.JID, "unacknowledged", n))
		first := receive(t, balcony, balcony.Bare, n)
		balcony.Drop()
		again := s.login(t, userOf(balcony), "balcony")
		second := receive(t, again, again.Bare, n)
		checkStamped(t, "the first time", first, archiveOf(t, again, ""))
		checkStamped(t, "the second time", second, first)
	})
}
