package conformance

import (
	"fmt"
	"slices"
)

// barrier makes everything that is on its way arrive, and returns it. Stanzas
// between two entities keep their order (RFC 6120, section 10.1), so each
// client sends one to each, of a type that is never archived, and one to itself
// through each of its rooms, and waits until it has them all. Twice: what a
// first stanza gave rise to, a carbon or a room's copy, takes another way than
// that one, and is ahead of a second.
func (r *run) barrier() (map[string][]*Element, error) {
	rest := map[string][]*Element{}
	for range 2 {
		if err := r.round(rest); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (r *run) round(rest map[string][]*Element) error {
	id := newID()
	present := slices.Clone(r.order)
	for _, from := range present {
		for _, occupant := range r.joined[from] {
			err := r.clients[from].Send("<iq type='get' to='" + escape(occupant) + "' id='" + id + "'><ping xmlns='" + nsPing + "'/></iq>")
			if err != nil {
				return fmt.Errorf("%s: %w", from, err)
			}
		}
		for _, to := range present {
			err := r.clients[from].Send("<message type='headline' to='" + r.clients[to].JID + "'><barrier xmlns='" +
				nsBarrier + "' id='" + id + "'/></message>")
			if err != nil {
				return fmt.Errorf("%s: %w", from, err)
			}
		}
	}
	for _, label := range present {
		for seen := 0; seen < len(present)+len(r.joined[label]); {
			e, err := r.clients[label].Next()
			if err != nil {
				return fmt.Errorf("%s: waiting for what is still on its way: %w", label, err)
			}
			if e.Child("{"+nsBarrier+"}barrier").Attr("id") == id || e.Name.Local == "iq" && e.Attr("id") == id {
				seen++
				continue
			}
			rest[label] = append(rest[label], e)
		}
	}
	return nil
}
