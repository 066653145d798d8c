package log

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
)

// Class groups the records that expire together. Records of different classes
// share one order of ids.
type Class uint16

// Audit is the class of records that never expire: preferences, policies,
// accounts, rosters, expiry runs, reads.
const Audit Class = 0

const maxClass Class = math.MaxUint16

// Class returns the class with that name, a new one if there was none. It is
// durable on return.
func (l *Log) Class(name string) (Class, error) {
	l.classes.Lock()
	defer l.classes.Unlock()
	if c, ok := l.classes.byName[name]; ok {
		return c, nil
	}
	if len(l.classes.names) > int(maxClass) {
		return 0, fmt.Errorf("log: no room for the retention class %q: %d exist already", name, maxClass)
	}
	c := Class(len(l.classes.names)) // they are never deleted, so the next is free
	if err := l.db.Set(classKey(c), []byte(name), pebble.Sync); err != nil {
		return 0, fmt.Errorf("log: add retention class %q: %w", name, err)
	}
	l.classes.byName[name], l.classes.names[c] = c, name
	return c, nil
}

// ClassName is the name that c was made with, "" for an unknown one.
func (l *Log) ClassName(c Class) string {
	l.classes.RLock()
	defer l.classes.RUnlock()
	return l.classes.names[c]
}

// Classes returns all classes by name.
func (l *Log) Classes() map[string]Class {
	l.classes.RLock()
	defer l.classes.RUnlock()
	m := make(map[string]Class, len(l.classes.byName))
	for n, c := range l.classes.byName {
		m[n] = c
	}
	return m
}

func (l *Log) loadClasses() error {
	l.classes.byName = map[string]Class{"audit": Audit}
	l.classes.names = map[Class]string{Audit: "audit"}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindClass}, UpperBound: []byte{kindClass + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		c := Class(binary.BigEndian.Uint16(it.Key()[1:]))
		l.classes.byName[string(it.Value())], l.classes.names[c] = c, string(it.Value())
	}
	return it.Error()
}
