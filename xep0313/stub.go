package xep0313

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// Options are one host's archiving options, under mod_mam's names.
type Options struct {
	ExpiresAfter          time.Duration // archive_expires_after; 0: never
	DefaultPolicy         log.Default   // default_archive_policy
	CleanupInterval       time.Duration // archive_cleanup_interval
	MaxQueryResults       int           // max_archive_query_results
	DontArchiveNamespaces []string      // dont_archive_namespaces
	SmartEnable           bool          // mam_smart_enable
}

// Host is one domain whose users' archives are kept.
type Host struct {
	Name     string
	Options  Options
	Log      *log.Log           // where its messages are
	Archives *projections.Store // of Log
}

// Contacts tells who is in whose roster.
type Contacts interface {
	HasContact(owner, contact string) (bool, error)
}

// Config for New.
type Config struct {
	Log         *log.Log           // preferences, policies, reads
	Projections *projections.Store // of Log
	Hosts       []Host
	Contacts    Contacts
	Logger      *zap.Logger
	Metrics     prometheus.Registerer // nil: none
}

// Archive answers MAM and decides what is archived.
type Archive struct{}

// New records changed server policies in the log, so it can write.
func New(ctx context.Context, c Config) (*Archive, error) { panic("stub") }

// Message is one message stanza on its way.
type Message struct {
	Stanza             *stanza.Element // from and to already stamped by the host
	From, To           jid.JID         // From full; To as addressed
	FromLocal, ToLocal bool            // that side has an account here and so an archive
}

// Delivery is what may be delivered once it is recorded.
type Delivery struct {
	Stanza      []byte    // to deliver, own xmlns, forged stanza-ids removed
	SenderID    ulid.ULID // in the sender's archive; zero: not archived
	RecipientID ulid.ULID // in the recipient's archive; zero: not archived
	Err         error     // not nil: nothing may be delivered; tell the sender (wait/internal-server-error)
}

// Record decides, appends and calls done when all of it is durable and visible:
// in commit order, from one goroutine per store; done must not block and must not call Record.
// Where nothing is archived, done still comes in order behind what was recorded earlier.
func (a *Archive) Record(m Message, done func(Delivery)) error { panic("stub") }

// WithStanzaID returns the stanza with <stanza-id by id/> as its last child; b unchanged if id is zero.
func WithStanzaID(b []byte, by string, id ulid.ULID) []byte { panic("stub") }

// HandleIQ answers iq if it is for the archive (query, prefs, metadata of urn:xmpp:mam:2); false if it isn't.
// iq.from is the asker's full JID, stamped. emit is called for each stanza of the answer (own xmlns), the IQ last.
func (a *Archive) HandleIQ(ctx context.Context, iq *stanza.Element, asker jid.JID, emit func([]byte)) (handled bool) {
	panic("stub")
}

// Features are the disco#info features of an account's bare JID (and of the host).
func Features() []string { panic("stub") }

// Preferences in force: the user's own, or those the server's policy gives (own == false).
func (a *Archive) Preferences(owner jid.JID) (p *log.Preferences, decidedBy ulid.ULID, own bool, err error) {
	panic("stub")
}

// SetPreferences validates, prepares and records. Errors for bad JIDs are *stanza.Error.
func (a *Archive) SetPreferences(ctx context.Context, owner jid.JID, p *log.Preferences, actor string, cause log.Cause) (*log.Preferences, error) {
	panic("stub")
}

// NoteRead records durably that actor (not the owner) reads owner's archive. Call before reading.
func (a *Archive) NoteRead(ctx context.Context, owner jid.JID, actor, query string) error {
	panic("stub")
}

// Host returns the configuration and retention class of a host, for reading its archives. NotBefore: retention now.
func (a *Archive) Archive(owner jid.JID) (s *projections.Store, class log.Class, notBefore time.Time, err error) {
	panic("stub")
}

// RunExpiry expires at each host's interval until ctx ends.
func (a *Archive) RunExpiry(ctx context.Context) { panic("stub") }
