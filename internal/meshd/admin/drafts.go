package admin

import (
	"context"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/meshd/draft"
)

// ImportDraft makes the objects of an import, of what the peer offers.
func (a *Admin) ImportDraft(_ context.Context, r *adminapi.ImportDraftRequest) (*adminapi.DraftResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	return draft.Import(p.Snapshot, r)
}

// ExportDraft makes the objects of an export, the policy that it needs included.
func (a *Admin) ExportDraft(_ context.Context, r *adminapi.ExportDraftRequest) (*adminapi.DraftResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	return draft.Export(p.Snapshot, r)
}
