package admin

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/log"
)

// auditPerMessage keeps the messages of the stream small.
const auditPerMessage = 200

// ListAudit streams the audit records of all stores, or of one, in the order of
// their ids.
func (s *Service) ListAudit(ctx context.Context, r *connect.Request[adminv1.ListAuditRequest], stream *connect.ServerStream[adminv1.ListAuditResponse]) error {
	names, err := s.named(r.Msg.GetStore())
	if err != nil {
		return err
	}
	owner, err := readAuditRequest(r.Msg)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), describeAudit(r.Msg)); err != nil {
		return err
	}
	part := &adminv1.ListAuditResponse{}
	for e, err := range s.auditEntries(names, r.Msg.GetSince().AsTime()) {
		if err != nil {
			return err
		}
		if !auditMatches(e, r.Msg) {
			continue
		}
		if part.Entries = append(part.Entries, e); len(part.Entries) == auditPerMessage {
			if err := stream.Send(part); err != nil {
				return err
			}
			part = &adminv1.ListAuditResponse{}
		}
	}
	return stream.Send(part)
}

// readAuditRequest checks r, prepares its JIDs, and returns the owner, the zero JID if
// none is named.
func readAuditRequest(r *adminv1.ListAuditRequest) (owner jid.JID, err error) {
	if t := r.GetOwner(); t != "" {
		if owner, err = jid.Parse(t); err != nil {
			return owner, fmt.Errorf("owner: %q is not a JID: %w", t, err)
		}
		r.Owner = owner.String()
	}
	if j, err := jid.Parse(r.GetActor()); err == nil {
		r.Actor = j.String() // an operator's is none, and stays
	}
	kinds := auditKinds()
	for _, k := range r.GetKinds() {
		if !slices.Contains(kinds, k) {
			return owner, fmt.Errorf("there is no kind %q; there is %s", k, strings.Join(kinds, ", "))
		}
	}
	return owner, nil
}

// auditKinds are the kinds that an audit record can be of: all that the log has but
// for messages.
func auditKinds() (names []string) {
	fields := new(log.Event).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); name != "message" {
			names = append(names, name)
		}
	}
	return names
}

// describeAudit is what is written down about a look at the history: its filters.
func describeAudit(r *adminv1.ListAuditRequest) string {
	b := []string{"audit history"}
	add := func(name, value string) {
		if value != "" {
			b = append(b, name+"="+value)
		}
	}
	add("store", r.GetStore())
	add("actor", r.GetActor())
	add("kind", strings.Join(r.GetKinds(), ","))
	add("since", stampText(r.GetSince()))
	add("until", stampText(r.GetUntil()))
	return strings.Join(b, " ")
}

func stampText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339Nano)
}

func auditMatches(e *adminv1.AuditEntry, r *adminv1.ListAuditRequest) bool {
	at := e.GetTime().AsTime()
	switch {
	case r.GetSince() != nil && at.Before(r.GetSince().AsTime()),
		r.GetUntil() != nil && at.After(r.GetUntil().AsTime()),
		r.GetOwner() != "" && e.GetOwner() != r.GetOwner(),
		r.GetActor() != "" && e.GetActor() != r.GetActor() && !strings.HasPrefix(e.GetActor(), r.GetActor()+"/"),
		len(r.GetKinds()) > 0 && !slices.Contains(r.GetKinds(), e.GetKind()):
		return false
	}
	return true
}

// auditEntries merges the audit records of stores in the order of their ids. Those
// before since may be left out.
func (s *Service) auditEntries(names []string, since time.Time) iter.Seq2[*adminv1.AuditEntry, error] {
	return func(yield func(*adminv1.AuditEntry, error) bool) {
		type head struct {
			store  string
			record log.Record
			next   func() (log.Record, error, bool)
		}
		var heads []*head
		// advance moves h on; false ends the whole.
		advance := func(h *head) bool {
			r, err, ok := h.next()
			if err != nil {
				yield(nil, err)
				return false
			}
			if h.record = r; !ok {
				heads = slices.DeleteFunc(heads, func(o *head) bool { return o == h })
			}
			return true
		}
		after := log.FirstAt(since.Add(-time.Millisecond))
		for _, name := range names {
			next, stop := iter.Pull2(s.Stores[name].Log.ScanAudit(after))
			defer stop()
			h := &head{store: name, next: next}
			heads = append(heads, h)
			if !advance(h) {
				return
			}
		}
		for len(heads) > 0 {
			first := slices.MinFunc(heads, func(a, b *head) int { return a.record.ID.Compare(b.record.ID) })
			if !yield(auditEntry(first.store, first.record), nil) || !advance(first) {
				return
			}
		}
	}
}

// auditEntry shows a record. Whom it is about and who caused it stands in fields of
// every event that have these names.
func auditEntry(store string, r log.Record) *adminv1.AuditEntry {
	e := &adminv1.AuditEntry{Id: r.ID.String(), Time: timestamppb.New(r.Time()), Store: store, Event: withoutSecrets(r.Event), Erased: r.Erased()}
	m := r.Event.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return e
	}
	e.Kind = string(field.Name())
	text := func(name protoreflect.Name) string {
		if f := field.Message().Fields().ByName(name); f != nil && f.Kind() == protoreflect.StringKind {
			return m.Get(field).Message().Get(f).String()
		}
		return ""
	}
	e.Actor = text("actor")
	for _, name := range []protoreflect.Name{"owner", "host", "class_name"} {
		if e.Owner = text(name); e.Owner != "" {
			break
		}
	}
	return e
}

// withoutSecrets is e without what verifies a password; that there was one remains.
func withoutSecrets(e *log.Event) *log.Event {
	if e.GetAccount().GetCredentials() == nil {
		return e
	}
	e = proto.CloneOf(e)
	e.GetAccount().Credentials = &log.Credentials{}
	return e
}
