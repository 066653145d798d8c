package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/audit"
	"mamlog/log"
)

// checkpointEvery is how long the audit history may grow before a checkpoint of it
// is signed.
const checkpointEvery = time.Hour

// RunCheckpoints signs a checkpoint now and every hour until ctx ends, if the history
// has grown.
func (s *Service) RunCheckpoints(ctx context.Context) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	for {
		s.KeepCheckpoint()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// KeepCheckpoint signs a checkpoint, if the history has grown since the last.
func (s *Service) KeepCheckpoint() {
	if _, _, err := s.checkpoint(); err != nil {
		s.Logger.Error("the audit history could not be signed", zap.Error(err))
	}
}

// checkpoint signs the trees of all stores that last. Where they are those of the
// newest checkpoint, it is that one.
func (s *Service) checkpoint() (c audit.Checkpoint, signed []byte, err error) {
	s.signing.Lock()
	defer s.signing.Unlock()
	c.Time = s.MainLog.Clock().Now()
	for name, tree := range s.trees() {
		h, err := audit.HeadOf(name, tree)
		if err != nil {
			return c, nil, err
		}
		c.Heads = append(c.Heads, h)
	}
	slices.SortFunc(c.Heads, func(a, b audit.Head) int { return strings.Compare(a.Store, b.Store) })
	newest, note, err := s.Book.Newest()
	if err != nil {
		return c, nil, err
	}
	if note != nil && newest.Same(c) {
		return newest, note, nil
	}
	if signed, err = c.Sign(s.Book.Signer()); err == nil {
		err = s.Book.Keep(c, signed)
	}
	return c, signed, err
}

// trees are those of the stores on disk: what is kept in memory only has no history
// that could be held against anybody.
func (s *Service) trees() map[string]audit.Tree {
	trees := make(map[string]audit.Tree)
	for name, st := range s.Stores {
		if !st.InMemory {
			trees[name] = st.Projections.AuditTree()
		}
	}
	return trees
}

// SignCheckpoint signs the audit history as it is.
func (s *Service) SignCheckpoint(context.Context, *connect.Request[adminv1.SignCheckpointRequest]) (*connect.Response[adminv1.SignCheckpointResponse], error) {
	_, signed, err := s.checkpoint()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.SignCheckpointResponse{Checkpoint: signed}), nil
}

// GetAuditKey returns the public key.
func (s *Service) GetAuditKey(context.Context, *connect.Request[adminv1.GetAuditKeyRequest]) (*connect.Response[adminv1.GetAuditKeyResponse], error) {
	return connect.NewResponse(&adminv1.GetAuditKeyResponse{Key: s.Book.Key()}), nil
}

// ProveInclusion proves that an event is in the history that a new checkpoint signs.
func (s *Service) ProveInclusion(ctx context.Context, r *connect.Request[adminv1.ProveInclusionRequest]) (*connect.Response[adminv1.ProveInclusionResponse], error) {
	id, err := ulid.ParseStrict(r.Msg.GetId())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not the id of an event, which is 26 letters and digits", r.Msg.GetId()))
	}
	for name, st := range s.Stores {
		rec, ok, err := st.Log.Get(log.Audit, id)
		if err != nil {
			return nil, err
		}
		if !ok || st.InMemory {
			continue
		}
		entry := auditEntry(name, rec)
		owner, err := jid.Parse(entry.GetOwner())
		if err != nil {
			owner = jid.JID{}
		}
		if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), "proof of the event "+id.String()); err != nil {
			return nil, err
		}
		// After this the tree has all that the log had when the event was found.
		if _, err := st.Log.AppendWait(ctx); err != nil {
			return nil, err
		}
		proof, err := s.proveInclusion(name, rec, entry)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&adminv1.ProveInclusionResponse{Proof: proof}), nil
	}
	return nil, connect.NewError(connect.CodeOutOfRange, fmt.Errorf("there is no event %s in the audit history; 'mamlog audit' shows what there is", id))
}

func (s *Service) proveInclusion(store string, rec log.Record, entry *adminv1.AuditEntry) ([]byte, error) {
	c, signed, err := s.checkpoint()
	if err != nil {
		return nil, err
	}
	tree := s.Stores[store].Projections.AuditTree()
	n, ok, err := tree.Find(rec.ID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("the event %s is in the log and not in the audit tree that was made of it: 'mamlog check' tells what was changed", rec.ID)
	}
	p, err := audit.ProveInclusion(c, signed, store, tree, n)
	if err != nil {
		return nil, err
	}
	p.ID, p.Sum = rec.ID, audit.EventSum(rec.Stored)
	stored := new(log.Event)
	if err := proto.Unmarshal(rec.Stored, stored); err != nil {
		return nil, err
	}
	if len(stored.GetAccount().GetCredentials().GetScram()) == 0 {
		p.Event = rec.Stored
	}
	if stored.GetAccount() == nil {
		if p.Personal, err = s.Stores[store].Log.Personal(rec.ID); err != nil {
			return nil, err
		}
	}
	if p.Shown, err = protojson.Marshal(entry); err != nil {
		return nil, fmt.Errorf("show the event %s: %w", rec.ID, err)
	}
	// What doesn't verify here was changed in the log since it was hashed.
	if _, err := p.Verify(s.Book.Verifier()); err != nil {
		return nil, fmt.Errorf("%w: 'mamlog check' tells what was changed", err)
	}
	return json.Marshal(p)
}

// ProveConsistency proves that the history that a new checkpoint signs has only
// grown since an older one.
func (s *Service) ProveConsistency(_ context.Context, r *connect.Request[adminv1.ProveConsistencyRequest]) (*connect.Response[adminv1.ProveConsistencyResponse], error) {
	from, err := audit.OpenCheckpoint(r.Msg.GetFrom(), s.Book.Verifier())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	to, signed, err := s.checkpoint()
	if err != nil {
		return nil, err
	}
	p, err := audit.ProveConsistency(from, to, r.Msg.GetFrom(), signed, s.trees())
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.ProveConsistencyResponse{Proof: b}), nil
}

// checkCheckpoints holds the audit tree of a store against every checkpoint that was
// kept, and tells what is wrong.
func (s *Service) checkCheckpoints(name string) (wrong []string, err error) {
	if s.Stores[name].InMemory {
		return nil, nil // what was signed of it before is on the disk that can't be opened
	}
	kept, err := s.Book.Checkpoints()
	if err != nil {
		return nil, err
	}
	tree := s.Stores[name].Projections.AuditTree()
	for _, k := range kept {
		if k.Err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", k.File, k.Err))
			continue
		}
		h, ok := k.Checkpoint.Head(name)
		if !ok {
			continue // a store that was not there yet, or in memory
		}
		w, err := h.Check(tree)
		if err != nil {
			return wrong, errors.Join(fmt.Errorf("%s", k.File), err)
		}
		if w != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s", k.File, w))
		}
	}
	return wrong, nil
}

// checkErasures tells of personal content that is gone from the log without a record
// of its erasure.
func (s *Service) checkErasures(name string) (wrong []string, err error) {
	missing := make(map[string][]ulid.ULID) // by owner
	for r, err := range s.Stores[name].Log.ScanAudit(ulid.ULID{}) {
		if err != nil {
			return nil, err
		}
		owner := r.Event.Owner()
		if r.Erased() {
			missing[owner] = append(missing[owner], r.ID)
		}
		if upTo := r.Event.GetErased().GetUpTo(); len(upTo) > 0 {
			missing[owner] = slices.DeleteFunc(missing[owner], func(id ulid.ULID) bool { return string(id[:]) <= string(upTo) })
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(missing)) {
		for _, id := range missing[owner] {
			wrong = append(wrong, fmt.Sprintf("record %s of %s: its personal content is gone, and no erasure accounts for it", id, owner))
		}
	}
	return wrong, nil
}
