package admin

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/log"
	"mamlog/projections"
)

// GetPreferences tells what is in force for a user, or was at a time, and by
// which event.
func (s *Service) GetPreferences(ctx context.Context, r *connect.Request[adminv1.GetPreferencesRequest]) (*connect.Response[adminv1.GetPreferencesResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	exists := s.mustLive
	if r.Msg.GetAt() != nil {
		exists = s.mustExist // then
	}
	if err := exists(owner); err != nil {
		return nil, err
	}
	query := "preferences"
	if r.Msg.GetAt() != nil {
		query += " at=" + stampText(r.Msg.GetAt())
	}
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), query); err != nil {
		return nil, err
	}
	var in *adminv1.PreferencesInForce
	if r.Msg.GetAt() == nil {
		in, err = s.inForce(owner)
	} else {
		in, err = s.inForceAt(owner, r.Msg.GetAt().AsTime())
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.GetPreferencesResponse{InForce: in}), nil
}

// inForce asks the archive, which decides by it.
func (s *Service) inForce(owner jid.JID) (*adminv1.PreferencesInForce, error) {
	p, id, own, err := s.Archive.Preferences(owner)
	if err != nil {
		return nil, err
	}
	in := &adminv1.PreferencesInForce{Preferences: p, Own: own}
	// The whole history is short, and only it has the event.
	for e, err := range s.history(owner) {
		if err != nil {
			return nil, err
		}
		if e.GetId() == id.String() {
			in.DecidedBy = e
		}
	}
	if policy := in.GetDecidedBy().GetPolicy(); policy != nil {
		in.Preferences = policyPreferences(policy.GetAfter())
	}
	return in, nil
}

// inForceAt folds the history up to t.
func (s *Service) inForceAt(owner jid.JID, t time.Time) (*adminv1.PreferencesInForce, error) {
	var own, policy *adminv1.HistoryEntry
	for e, err := range s.history(owner) {
		if err != nil {
			return nil, err
		}
		if e.GetTime().AsTime().After(t) {
			break
		}
		switch {
		case e.GetPolicy() != nil:
			policy = e
		case e.GetPreferences().GetAfter() == nil:
			own = nil // the policy applies again
		default:
			own = e
		}
	}
	switch {
	case own != nil:
		return &adminv1.PreferencesInForce{Preferences: own.GetPreferences().GetAfter(), Own: true, DecidedBy: own}, nil
	case policy != nil:
		return &adminv1.PreferencesInForce{Preferences: policyPreferences(policy.GetPolicy().GetAfter()), DecidedBy: policy}, nil
	}
	return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("nothing was in force for %s at %s: the log holds no earlier preferences and no earlier policy of %s", owner, t.UTC().Format(time.RFC3339Nano), owner.Domainpart()))
}

// policyPreferences are those of a user who has set none.
func policyPreferences(p *log.Policy) *log.Preferences {
	if p.GetSmartEnable() {
		return &log.Preferences{Default: log.Default_DEFAULT_NEVER} // until the first use of the archive
	}
	return &log.Preferences{Default: p.GetDefault()}
}

// SetPreferences sets those that the request names, and leaves the others.
func (s *Service) SetPreferences(ctx context.Context, r *connect.Request[adminv1.SetPreferencesRequest]) (*connect.Response[adminv1.SetPreferencesResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	if err := s.mustLive(owner); err != nil {
		return nil, err
	}
	// The answer, or an error, shows also what is not changed.
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), "preferences, to set them"); err != nil {
		return nil, err
	}
	s.preferences.Lock()
	defer s.preferences.Unlock()
	now, _, _, err := s.Archive.Preferences(owner)
	if err != nil {
		return nil, err
	}
	p := &log.Preferences{Default: now.GetDefault(), Always: slices.Clone(now.GetAlways()), Never: slices.Clone(now.GetNever())}
	if d := r.Msg.GetDefault(); d != log.Default_DEFAULT_UNSPECIFIED {
		p.Default = d
	}
	if l := r.Msg.GetAlways(); l != nil {
		p.Always = l.GetJids()
	}
	if l := r.Msg.GetNever(); l != nil {
		p.Never = l.GetJids()
	}
	for _, a := range p.Always {
		if slices.Contains(p.Never, a) {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s would be listed under both always and never", a))
		}
	}
	if _, err := s.Archive.SetPreferences(ctx, owner, p, Caller(ctx), log.Cause_CAUSE_OPERATOR); err != nil {
		return nil, err
	}
	in, err := s.inForce(owner)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.SetPreferencesResponse{InForce: in}), nil
}

// ListPreferenceHistory streams every change, oldest first.
func (s *Service) ListPreferenceHistory(ctx context.Context, r *connect.Request[adminv1.ListPreferenceHistoryRequest], stream *connect.ServerStream[adminv1.ListPreferenceHistoryResponse]) error {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return err
	}
	if err := s.mustExist(owner); err != nil {
		return err
	}
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), "preference history"); err != nil {
		return err
	}
	for e, err := range s.history(owner) {
		if err != nil {
			return err
		}
		if err := stream.Send(&adminv1.ListPreferenceHistoryResponse{Entry: e}); err != nil {
			return err
		}
	}
	return nil
}

// history merges the changes of the user's preferences with those of the host's
// policy, in the order of their ids.
func (s *Service) history(owner jid.JID) iter.Seq2[*adminv1.HistoryEntry, error] {
	return func(yield func(*adminv1.HistoryEntry, error) bool) {
		nextPolicy, stop := iter.Pull2(s.Main.PolicyHistory(owner.Domainpart()))
		defer stop()
		policy, err, more := nextPolicy()
		// policies yields those before the id; false ends the whole.
		policies := func(before ulid.ULID) bool {
			for ; more && (err != nil || policy.ID.Compare(before) < 0); policy, err, more = nextPolicy() {
				if !yield(policyEntry(policy), err) || err != nil {
					return false
				}
			}
			return true
		}
		for c, err := range s.Main.PreferenceHistory(owner.String()) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !policies(c.ID) || !yield(preferencesEntry(c), nil) {
				return
			}
		}
		policies(maxID)
	}
}

// maxID is behind every id: the clock never gets to it.
var maxID = func() (id ulid.ULID) {
	for i := range id {
		id[i] = 0xff
	}
	return id
}()

func policyEntry(c projections.Change[*log.PolicyChanged]) *adminv1.HistoryEntry {
	return &adminv1.HistoryEntry{
		Id: c.ID.String(), Time: timestamppb.New(log.IDTime(c.ID)),
		Change: &adminv1.HistoryEntry_Policy{Policy: c.Change},
	}
}

func preferencesEntry(c projections.Change[*log.PreferencesChanged]) *adminv1.HistoryEntry {
	return &adminv1.HistoryEntry{
		Id: c.ID.String(), Time: timestamppb.New(log.IDTime(c.ID)),
		Change: &adminv1.HistoryEntry_Preferences{Preferences: c.Change},
	}
}
