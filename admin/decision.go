package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313"
)

// Explain tells why a message was archived: by which rule, and what the preferences
// in force said. What the message says is not looked at.
func (s *Service) Explain(ctx context.Context, r *connect.Request[adminv1.ExplainRequest]) (*connect.Response[adminv1.ExplainResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	id, err := ulid.ParseStrict(r.Msg.GetId())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not an archive id, which is 26 letters and digits", r.Msg.GetId()))
	}
	if err := s.mustLive(owner); err != nil {
		return nil, err
	}
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), "why "+id.String()); err != nil {
		return nil, err
	}
	rows, q, err := s.Archive.Archive(owner)
	if err != nil {
		return nil, err
	}
	q.IDs, q.Max = []ulid.ULID{id}, 1
	page, err := rows.Query(q)
	var missing *projections.NotFoundError
	if errors.As(err, &missing) {
		err = connect.NewError(connect.CodeOutOfRange, fmt.Errorf("the archive of %s holds no message %s: it has expired, or there never was one", owner, id))
	}
	if err != nil {
		return nil, err
	}
	m, err := page.Rows[0].Message()
	if err != nil {
		return nil, err
	}
	res := &adminv1.ExplainResponse{
		Id: id.String(), Time: timestamppb.New(page.Rows[0].Time()), With: m.GetPeer(), Direction: m.GetDirection(),
		Reason: m.GetReason(), DecidedBy: idText(m.GetDecidedBy()),
	}
	if m.GetDirection() == log.Direction_DIRECTION_ROOM || res.DecidedBy == "" {
		return connect.NewResponse(res), nil
	}
	in, err := s.inForceBy(owner, res.DecidedBy)
	if err != nil || in == nil {
		return connect.NewResponse(res), err
	}
	peer, err := jid.Parse(m.GetPeer())
	if err != nil {
		return nil, fmt.Errorf("the message %s is with %q: %w", id, m.GetPeer(), err)
	}
	// Roster changes that were ordered after the message did not decide on it.
	if res.Decision, err = s.decide(owner, peer, in, id); err != nil {
		return nil, err
	}
	if res.Decision.GetVerdict() == adminv1.Verdict_VERDICT_IF_CONTACT {
		res.Decision.Verdict = adminv1.Verdict_VERDICT_ARCHIVED // so it was one
	}
	return connect.NewResponse(res), nil
}

// inForceBy is what the event with that id put in force; nil if the history doesn't
// have it.
func (s *Service) inForceBy(owner jid.JID, id string) (*adminv1.PreferencesInForce, error) {
	for e, err := range s.history(owner) {
		switch {
		case err != nil:
			return nil, err
		case e.GetId() != id:
		case e.GetPolicy() != nil:
			return &adminv1.PreferencesInForce{Preferences: policyPreferences(e.GetPolicy().GetAfter()), DecidedBy: e}, nil
		default:
			return &adminv1.PreferencesInForce{Preferences: e.GetPreferences().GetAfter(), Own: true, DecidedBy: e}, nil
		}
	}
	return nil, nil
}

// Decide tells what is decided about messages with a peer, or was at a time.
func (s *Service) Decide(ctx context.Context, r *connect.Request[adminv1.DecideRequest]) (*connect.Response[adminv1.DecideResponse], error) {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return nil, err
	}
	peer, err := jid.Parse(r.Msg.GetPeer())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not a JID: %w", r.Msg.GetPeer(), err))
	}
	if err := s.mustExist(owner); err != nil {
		return nil, err
	}
	at := s.MainLog.Clock().Now()
	query := "policy " + peer.String()
	if r.Msg.GetAt() != nil {
		at = r.Msg.GetAt().AsTime()
		query += " at=" + stampText(r.Msg.GetAt())
	}
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), query); err != nil {
		return nil, err
	}
	in, err := s.inForceAt(owner, at)
	if err != nil {
		return nil, err
	}
	d, err := s.decide(owner, peer, in, log.FirstAt(at.Add(time.Millisecond)))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.DecideResponse{Decision: d}), nil
}

// decide applies what is in force to messages with peer. What the roster says counts
// if it was ordered before the id.
func (s *Service) decide(owner, peer jid.JID, in *adminv1.PreferencesInForce, before ulid.ULID) (*adminv1.Decision, error) {
	d := &adminv1.Decision{InForce: in, RosterHere: s.local(owner)}
	if in.GetDecidedBy().GetPolicy().GetAfter().GetSmartEnable() {
		d.Verdict, d.Rule = adminv1.Verdict_VERDICT_NOT_ARCHIVED, adminv1.Rule_RULE_SMART_ENABLE
		return d, nil
	}
	v := xep0313.Judge(in.GetPreferences(), owner.String(), peer.String())
	d.Entry, d.Verdict = v.Entry, adminv1.Verdict_VERDICT_NOT_ARCHIVED
	if v.Keep {
		d.Verdict = adminv1.Verdict_VERDICT_ARCHIVED
	}
	switch {
	case v.Entry != "" && v.Keep:
		d.Rule = adminv1.Rule_RULE_ALWAYS
	case v.Entry != "":
		d.Rule = adminv1.Rule_RULE_NEVER
	case v.IfContact:
		d.Rule = adminv1.Rule_RULE_CONTACT
		return d, s.decideContact(d, owner.String(), peer.Bare().String(), before)
	case in.GetPreferences().GetDefault() == log.Default_DEFAULT_ROSTER:
		d.Rule = adminv1.Rule_RULE_SELF
	default:
		d.Rule = adminv1.Rule_RULE_DEFAULT
	}
	return d, nil
}

// decideContact finds out from the log whether contact was in owner's roster.
func (s *Service) decideContact(d *adminv1.Decision, owner, contact string, before ulid.ULID) error {
	if !d.RosterHere {
		d.Verdict = adminv1.Verdict_VERDICT_IF_CONTACT
		return nil
	}
	d.Verdict = adminv1.Verdict_VERDICT_NOT_ARCHIVED
	for r, err := range s.MainLog.ScanAudit(ulid.ULID{}) {
		if err != nil {
			return err
		}
		if r.ID.Compare(before) >= 0 {
			break
		}
		roster, account := r.Event.GetRoster(), r.Event.GetAccount()
		listed := roster.GetItem().GetListed()
		switch {
		case roster.GetOwner() == owner && roster.GetContact() == contact:
		case account.GetOwner() == owner && account.GetCredentials() == nil: // deleted, and the roster with it
		default:
			continue
		}
		d.ContactEvent, d.ContactSince = r.ID.String(), timestamppb.New(r.Time())
		if d.Verdict = adminv1.Verdict_VERDICT_NOT_ARCHIVED; listed {
			d.Verdict = adminv1.Verdict_VERDICT_ARCHIVED
		}
	}
	return nil
}
