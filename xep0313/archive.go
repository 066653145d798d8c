package xep0313

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
)

// The namespaces of the archive.
const (
	NS          = "urn:xmpp:mam:2"
	NSExtended  = "urn:xmpp:mam:2#extended"
	NSGroupchat = "urn:xmpp:mam:2#groupchat-field"
	NSStanzaID  = "urn:xmpp:sid:0"
	NSForward   = "urn:xmpp:forward:0"
	NSDelay     = "urn:xmpp:delay"
	NSForm      = "jabber:x:data"
	NSRSM       = "http://jabber.org/protocol/rsm"
	NSHints     = "urn:xmpp:hints"

	nsMUCUser = "http://jabber.org/protocol/muc#user"
)

// Features are what an account's bare JID, and its server, advertise in
// disco#info for the archive (XEP-0313 section 9).
func Features() []string {
	return append(ReadFeatures(), NSRetract, NSTombstone, NSTrim)
}

// ReadFeatures are those of them that hold where nothing but queries comes here.
func ReadFeatures() []string { return []string{NS, NSExtended, NSGroupchat, NSStanzaID, NSRSM} }

// Options are one host's archiving options, under mod_mam's names.
type Options struct {
	ExpiresAfter          time.Duration // archive_expires_after; 0: never
	DefaultPolicy         log.Default   // default_archive_policy
	CleanupInterval       time.Duration // archive_cleanup_interval; 0: never
	MaxQueryResults       int           // max_archive_query_results
	DontArchiveNamespaces []string      // dont_archive_namespaces
	SmartEnable           bool          // mam_smart_enable

	// What one archive holds at most; what is older goes. 0: any amount.
	QuotaItems uint64 // archive_quota_items
	QuotaBytes uint64 // archive_quota_bytes: of the stanzas
}

// DefaultOptions are those of mod_mam.
func DefaultOptions() Options {
	return Options{
		ExpiresAfter:          7 * 24 * time.Hour,
		DefaultPolicy:         log.Default_DEFAULT_ALWAYS,
		CleanupInterval:       4 * time.Hour,
		MaxQueryResults:       50,
		DontArchiveNamespaces: []string{"http://jabber.org/protocol/chatstates"},
	}
}

// Host is one domain whose users' archives are kept.
type Host struct {
	Name     string
	Options  Options
	Log      *log.Log           // where its messages are
	Archives *projections.Store // of Log
}

// Contacts tells who is in whose roster; JIDs are bare.
type Contacts interface {
	HasContact(owner, contact string) (bool, error)
}

// Config for New.
type Config struct {
	Log         *log.Log           // where preferences, policies and reads are
	Projections *projections.Store // of Log
	Hosts       []Host
	Contacts    Contacts
	Logger      *zap.Logger           // nil: silent
	Metrics     prometheus.Registerer // nil: none
	Limits      Limits

	// KeepPolicies is for those who decide on no message: a policy that is not
	// the one that the log knows is not recorded, unless it knows none.
	KeepPolicies bool
}

// Archive decides, records and answers for a number of hosts. It is made by New
// and safe for concurrent use.
type Archive struct {
	log         *log.Log
	projections *projections.Store
	hosts       map[string]*host
	contacts    Contacts
	logger      *zap.Logger
	metrics     *metrics
	limits      Limits
	imports     imports
	chores      chores

	// A message is decided on and queued under read locks of its owners'
	// stripes; a preference or roster change holds the write lock from before it
	// is queued until it is in force. So no message is ordered after a change
	// that it was not judged by.
	stripes [256]sync.RWMutex
}

type host struct {
	Host
	class    log.Class
	policy   *log.Preferences // what the host's policy gives to a user without their own
	policyID ulid.ULID        // the event that says so
}

// New returns the archive of the hosts. Where a host's policy is not the one
// that the log knows, it records the change.
func New(ctx context.Context, c Config) (*Archive, error) {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	a := &Archive{
		log: c.Log, projections: c.Projections, contacts: c.Contacts, logger: c.Logger, limits: c.Limits.withDefaults(),
		hosts: make(map[string]*host, len(c.Hosts)), chores: newChores(),
	}
	var err error
	if a.metrics, err = newMetrics(c.Metrics); err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		if _, ok := a.hosts[h.Name]; ok {
			return nil, fmt.Errorf("the host %s is configured twice", h.Name)
		}
		if a.hosts[h.Name], err = a.newHost(ctx, h, c.KeepPolicies); err != nil {
			return nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return a, nil
}

func (a *Archive) newHost(ctx context.Context, h Host, keepPolicy bool) (*host, error) {
	class, err := h.Log.Class(h.Name)
	if err != nil {
		return nil, err
	}
	policy := &log.Policy{
		Default:               h.Options.DefaultPolicy,
		SmartEnable:           h.Options.SmartEnable,
		ExpiresAfterSeconds:   int64(h.Options.ExpiresAfter / time.Second),
		DontArchiveNamespaces: slices.Clone(h.Options.DontArchiveNamespaces),
		QuotaItems:            h.Options.QuotaItems,
		QuotaBytes:            h.Options.QuotaBytes,
	}
	before, id, err := a.projections.Policy(h.Name)
	if err != nil {
		return nil, err
	}
	if !proto.Equal(before, policy) && (before == nil || !keepPolicy) {
		ids, err := a.log.AppendWait(ctx, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Policy{
			Policy: &log.PolicyChanged{Host: h.Name, Before: before, After: policy},
		}}})
		if err != nil {
			return nil, fmt.Errorf("record the policy: %w", err)
		}
		id = ids[0]
	}
	return &host{
		Host: h, class: class, policyID: id,
		policy: &log.Preferences{Default: h.Options.DefaultPolicy},
	}, nil
}

var errUnknownHost = errors.New("no archives are kept for that host")

func (a *Archive) hostOf(owner jid.JID) (*host, error) {
	h, ok := a.hosts[owner.Domainpart()]
	if !ok {
		return nil, fmt.Errorf("%s: %w", owner.Domainpart(), errUnknownHost)
	}
	return h, nil
}

// Archive returns where owner's archive is, and a query for all that exists in
// it: nothing that has expired, and nothing that belonged to a deleted account
// of the same name.
func (a *Archive) Archive(owner jid.JID) (*projections.Store, projections.Query, error) {
	h, err := a.hostOf(owner)
	if err != nil {
		return nil, projections.Query{}, err
	}
	q, err := a.all(h, owner.Bare().String())
	return h.Archives, q, err
}

func (a *Archive) all(h *host, owner string) (q projections.Query, err error) {
	q = projections.Query{Class: h.class, Owner: owner}
	keep, err := a.keeps(h, owner)
	if err != nil {
		return q, err
	}
	if keep.expiresAfter > 0 {
		now, _ := h.Log.RetentionTime()
		q.NotBefore = now.Add(-keep.expiresAfter)
	}
	q.Floor, err = a.projections.DeletedAt(owner)
	return q, err
}

// NoteRead records, durably, that actor reads owner's archive, preferences or
// history (with the zero JID everybody's); query tells which and the bounds.
// Whoever reads what isn't theirs must call it before.
func (a *Archive) NoteRead(ctx context.Context, owner jid.JID, actor, query string) error {
	_, err := a.log.AppendWait(ctx, log.Entry{Class: log.Audit, Event: &log.Event{Kind: &log.Event_Read{
		Read: &log.ArchiveRead{Owner: owner.Bare().String(), Actor: actor, Query: query},
	}}})
	if err != nil {
		return fmt.Errorf("record that %s reads the archive of %s: %w", actor, owner.Bare(), err)
	}
	return nil
}

var stripeSeed = maphash.MakeSeed()

func stripe(owner string) int { return int(maphash.String(stripeSeed, owner) % 256) }

// locks is a set of owners' stripes.
type locks struct{ shared, exclusive [4]uint64 }

func (l *locks) add(owner string, exclusive bool) {
	n := stripe(owner)
	if exclusive {
		l.exclusive[n/64] |= 1 << (n % 64)
	} else {
		l.shared[n/64] |= 1 << (n % 64)
	}
}

// each calls one of the two for the lock of each stripe.
func (l *locks) each(a *Archive, shared, exclusive func(*sync.RWMutex)) {
	for w := range l.shared {
		for all := l.shared[w] | l.exclusive[w]; all != 0; all &= all - 1 {
			n := bits.TrailingZeros64(all)
			m := &a.stripes[w*64+n]
			if l.exclusive[w]&(1<<n) != 0 {
				exclusive(m)
			} else {
				shared(m)
			}
		}
	}
}

// lock holds off changes to what owners' messages are judged by, and of those of
// exclusive stripes other messages too, until unlock.
func (a *Archive) lock(l *locks) { l.each(a, (*sync.RWMutex).RLock, (*sync.RWMutex).Lock) }

func (a *Archive) unlock(l *locks) { l.each(a, (*sync.RWMutex).RUnlock, (*sync.RWMutex).Unlock) }

// Changing runs change, which alters what owner's messages are judged by (the
// roster, say) and returns when the change is in force: no message of owner's is
// decided on meanwhile.
func (a *Archive) Changing(owner string, change func() error) error {
	m := &a.stripes[stripe(owner)]
	m.Lock()
	defer m.Unlock()
	return change()
}
