package projections

import (
	"iter"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"

	"mamlog/log"
)

// Options for Open. The zero value works.
type Options struct {
	FS     vfs.FS        // nil: the operating system's
	Cache  *pebble.Cache // nil: one of its own, 8 MiB
	Logger *zap.Logger   // nil: silent

	// Retention tells how long records of a class are kept, 0 for ever. It
	// chooses how finely the class's rows are cut into time buckets; a change
	// that asks for another cut makes Open rebuild.
	Retention func(log.Class) time.Duration

	// Progress is told how many records were applied in catching up.
	Progress func(records int)
}

// Store holds the rows.
type Store struct{}

// Open opens the projections of l in dir, brings them up to the end of l and
// keeps them there (it calls l.Follow).
func Open(dir string, l *log.Log, o Options) (*Store, error) { panic("stub") }
func (s *Store) Close() error                                { panic("stub") }

// Rebuild deletes all rows and makes them anew from the log. The store must not be in use by others meanwhile except for reads (they block).
func (s *Store) Rebuild(progress func(records int)) error { panic("stub") }

// Check compares every row with what a fold of the log gives.
// Each difference is one line in words in CheckReport.Problems (at most 100 kept).
func (s *Store) Check(progress func(records int)) (CheckReport, error) { panic("stub") }

type CheckReport struct {
	Records, Rows int
	Differences   int
	Problems      []string
}

// Stats for metrics.
type Stats struct {
	Position  ulid.ULID
	DiskBytes uint64
}

func (s *Store) Stats() Stats { panic("stub") }

// ---- archives

// Row is one archived message.
type Row struct {
	ID      ulid.ULID
	Message *log.MessageArchived
}

// Query asks for one page of one archive.
type Query struct {
	Class log.Class
	Owner string // bare JID
	With  string // bare or full JID, "" for all

	// The result set: bounds that hold together. Zero values are open.
	Since, Until  time.Time // inclusive
	After, Before ulid.ULID // exclusive
	IDs           []ulid.ULID // if not nil, only these
	NotBefore     time.Time   // retention: older messages don't exist

	// The page of it (XEP-0059).
	PageAfter, PageBefore ulid.ULID // exclusive
	Backward              bool      // the last Max of what is left, not the first
	Index                 int       // skip so many of the result set (only forward)
	Max                   int
}

// Page is a part of a result set, oldest first.
type Page struct {
	Rows     []Row
	Count    int  // messages in the whole result set, exact
	Index    int  // of Rows[0] in it
	Complete bool // nothing is left in the direction of paging
}

func (s *Store) Query(q Query) (Page, error) { panic("stub") }

// NotFoundError: a bound names an id that the archive does not hold.
type NotFoundError struct{ ID ulid.ULID }

func (e *NotFoundError) Error() string { return "no message " + e.ID.String() + " in the archive" }

// Bounds returns the ids of the first and last message; ok is false for an empty archive.
func (s *Store) Bounds(c log.Class, owner string, notBefore time.Time) (first, last ulid.ULID, ok bool, err error) {
	panic("stub")
}

// ---- preferences

// Preferences of one user, with the event that set them; nil if the user has none (the server's policy applies).
func (s *Store) Preferences(owner string) (*log.Preferences, ulid.ULID, error) { panic("stub") }

// Change is one entry of a history, oldest first.
type PreferenceChange struct {
	ID     ulid.ULID
	Change *log.PreferencesChanged
}

func (s *Store) PreferenceHistory(owner string) iter.Seq2[PreferenceChange, error] { panic("stub") }

type PolicyChange struct {
	ID     ulid.ULID
	Change *log.PolicyChanged
}

func (s *Store) Policy(host string) (*log.Policy, ulid.ULID, error)      { panic("stub") }
func (s *Store) PolicyHistory(host string) iter.Seq2[PolicyChange, error] { panic("stub") }

// ---- accounts and rosters of the embedded host

// Account returns nil if there is no such account.
func (s *Store) Account(owner string) (*log.Credentials, error) { panic("stub") }

// Accounts yields bare JIDs in order; host "" for all.
func (s *Store) Accounts(host string) iter.Seq2[string, error] { panic("stub") }

// Roster returns all items of owner, also those with listed == false.
func (s *Store) Roster(owner string) ([]*log.RosterItem, error)              { panic("stub") }
func (s *Store) RosterItem(owner, contact string) (*log.RosterItem, error) { panic("stub") }

// HasContact: contact (bare JID) is listed in owner's roster.
func (s *Store) HasContact(owner, contact string) (bool, error) { panic("stub") }
