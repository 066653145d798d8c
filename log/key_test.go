package log

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// No table of records overlaps another, so that none is ever merged with one: whatever
// else a commit writes.
func TestTablesOfRecordsLieApart(t *testing.T) {
	l := open(t, vfs.NewMem(), nil)
	defer l.Close()
	var classes []Class
	for _, name := range []string{"a.example", "b.example"} {
		c, err := l.Class(name)
		if err != nil {
			t.Fatal(err)
		}
		classes = append(classes, c)
	}
	const rounds = 12
	for round := range rounds {
		for i := range 30 {
			mustAppend(t, l,
				Entry{Class: classes[i%2], Event: message("a@h", "x"), OnceOwner: "a@h", OnceKey: fmt.Sprint(round, i)},
				Entry{Class: Audit, Event: &Event{Kind: &Event_Roster{Roster: &RosterChanged{Owner: "a@h"}}}})
		}
		if err := l.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	levels, err := l.db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	var tables []pebble.SSTableInfo
	for _, level := range levels {
		for _, table := range level {
			if table.Largest.UserKey[0] == kindRecord {
				tables = append(tables, table)
			}
		}
	}
	slices.SortFunc(tables, func(a, b pebble.SSTableInfo) int {
		return cmp.Or(bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey), cmp.Compare(a.FileNum, b.FileNum))
	})
	var before []byte
	found := make(map[byte]int)
	for _, table := range tables {
		if table.Smallest.UserKey[0] != kindRecord || bytes.Compare(table.Smallest.UserKey, before) <= 0 {
			t.Errorf("a table begins with %x, where one ends with %x", table.Smallest.UserKey, before)
		}
		before = table.Largest.UserKey
		if a, b := table.Smallest.UserKey[2], table.Largest.UserKey[2]; a != b {
			t.Errorf("a table has records of the classes %d to %d", a, b)
		}
		found[before[2]]++
	}
	if len(found) != 3 || len(tables) < rounds {
		t.Errorf("there are tables by class: %v; this test compares too little", found)
	}
}
