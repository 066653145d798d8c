package projections

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

func (w *writer) roster(r *log.RosterChanged) error {
	key := ownedKey(kindRoster, r.GetOwner(), []byte(r.GetContact())...)
	if r.GetItem() == nil {
		return w.batch.Delete(key, nil)
	}
	return w.put(key, r.GetItem())
}

// Roster returns all that owner's roster holds, in the order of the contacts'
// JIDs: also pending inbound requests, which are not Listed.
func (s *Store) Roster(owner string) (items []*log.RosterItem, err error) {
	for kv, err := range s.under(ownedKey(kindRoster, owner)) {
		i := new(log.RosterItem)
		if err == nil {
			err = proto.Unmarshal(kv.value, i)
		}
		if err != nil {
			return nil, fmt.Errorf("read the roster of %s: %w", owner, err)
		}
		items = append(items, i)
	}
	return items, nil
}

// RosterItem returns what owner's roster says of contact, a bare JID; nil if
// nothing.
func (s *Store) RosterItem(owner, contact string) (i *log.RosterItem, err error) {
	err = s.read(func(r *rows) error {
		v, err := r.get(ownedKey(kindRoster, owner, []byte(contact)...))
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		i = new(log.RosterItem)
		return proto.Unmarshal(v, i)
	})
	if err != nil {
		return nil, fmt.Errorf("read the roster of %s: %w", owner, err)
	}
	return i, nil
}

// HasContact tells whether contact, a bare JID, is listed in owner's roster.
func (s *Store) HasContact(owner, contact string) (bool, error) {
	i, err := s.RosterItem(owner, contact)
	return i.GetListed(), err
}
