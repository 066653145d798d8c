package projections

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"mamlog/log"
)

func (w *writer) retention(l *log.RetentionChanged) error {
	w.changed = append(w.changed, l.GetOwner())
	key := append([]byte{kindRetention}, l.GetOwner()...)
	if proto.Equal(l.GetAfter(), new(log.Retention)) || l.GetAfter() == nil {
		return w.batch.Delete(key, nil)
	}
	return w.put(key, l.GetAfter())
}

// Retention returns what is set for owner alone of how much is kept, nil if nothing is.
// They must not be changed.
func (s *Store) Retention(owner string) (*log.Retention, error) {
	e, err := s.preferences.get(owner, func() (e preferenceEntry, err error) {
		err = s.read(func(r *rows) error { e, err = r.preferenceEntry(owner); return err })
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the retention of %s: %w", owner, err)
	}
	return e.retention, nil
}

func (r *rows) ownRetention(owner string) (*log.Retention, error) {
	v, err := r.get(append([]byte{kindRetention}, owner...))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := new(log.Retention)
	return l, proto.Unmarshal(v, l)
}
