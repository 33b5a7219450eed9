package admin

import (
	"context"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/meshd/draft"
)

// ImportDraft drafts the objects for an import of a service that the peer offers.
func (a *Admin) ImportDraft(_ context.Context, r *adminapi.ImportDraftRequest) (*adminapi.DraftResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	return draft.Import(p.Snapshot, r)
}

// ExportDraft drafts the objects for an export, including the policy that it needs.
func (a *Admin) ExportDraft(_ context.Context, r *adminapi.ExportDraftRequest) (*adminapi.DraftResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	return draft.Export(p.Snapshot, r)
}
