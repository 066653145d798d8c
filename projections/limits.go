package projections

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

func (w *writer) limits(l *log.LimitsChanged) error {
	w.changed = append(w.changed, l.GetOwner())
	key := append([]byte{kindLimits}, l.GetOwner()...)
	if proto.Equal(l.GetAfter(), new(log.Limits)) || l.GetAfter() == nil {
		return w.batch.Delete(key, nil)
	}
	return w.put(key, l.GetAfter())
}

// Limits returns the limits that owner has of their own, nil if they have none.
// They must not be changed.
func (s *Store) Limits(owner string) (*log.Limits, error) {
	e, err := s.preferences.get(owner, func() (e preferenceEntry, err error) {
		err = s.read(func(r *rows) error { e, err = r.preferenceEntry(owner); return err })
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the limits of %s: %w", owner, err)
	}
	return e.limits, nil
}

func (r *rows) ownLimits(owner string) (*log.Limits, error) {
	v, err := r.get(append([]byte{kindLimits}, owner...))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := new(log.Limits)
	return l, proto.Unmarshal(v, l)
}
