// Package schema checks objects of Isthmus's own kinds against the CRD schemas generated from their Go types, including
// CEL rules, as a Kubernetes API server would. So the same rules apply to a folder of files as to a cluster.
package schema

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// Schemas holds the schema of each own kind, compiled on first use.
type Schemas struct {
	byKind map[string]func() (*schema, error)
}

// schema is one compiled CRD schema.
type schema struct {
	structural *structural.Structural
	shape      validation.SchemaValidator
	rules      *cel.Validator // nil if the schema has no rules
}

// New returns the uncompiled schemas of all own kinds.
func New() *Schemas {
	s := &Schemas{byKind: map[string]func() (*schema, error){}}
	for _, k := range kind.All {
		if k.Family == kind.Ours {
			s.byKind[k.Name] = sync.OnceValues(func() (*schema, error) { return compile(k) })
		}
	}
	return s
}

// Validate checks a document of an own kind and does not modify it. It is an istioyaml.Validator.
func (s *Schemas) Validate(kindName string, document map[string]any) []finding.Finding {
	get, ok := s.byKind[kindName]
	if !ok {
		return nil
	}
	c, err := get()
	if err != nil {
		return []finding.Finding{finding.New(finding.Invalid, kind.Key{}, "", err.Error(), "report this as a bug")}
	}
	return c.validate(document)
}

func (c *schema) validate(document map[string]any) []finding.Finding {
	pruned := runtime.DeepCopyJSON(document)
	unknown := pruning.PruneWithOptions(pruned, c.structural, true,
		structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	findings := c.unknownFields(unknown)
	errs := validation.ValidateCustomResource(nil, pruned, c.shape)
	if len(errs) == 0 && c.rules != nil {
		errs, _ = c.rules.Validate(context.Background(), nil, c.structural, pruned, nil, celconfig.RuntimeCELCostBudget)
	}
	for _, e := range errs {
		findings = append(findings, c.word(e))
	}
	return findings
}

func compile(k kind.Kind) (*schema, error) {
	props, err := props(k)
	if err != nil {
		return nil, fmt.Errorf("read schema of %s: %w", k.Name, err)
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal,
		nil); err != nil {
		return nil, fmt.Errorf("convert schema of %s: %w", k.Name, err)
	}
	st, err := structural.NewStructural(&internal)
	if err != nil {
		return nil, fmt.Errorf("compile schema of %s: %w", k.Name, err)
	}
	shape, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, fmt.Errorf("compile schema of %s: %w", k.Name, err)
	}
	return &schema{structural: st, shape: shape, rules: cel.NewValidator(st, true, celconfig.PerCallLimit)}, nil
}

func props(k kind.Kind) (*apiextensionsv1.JSONSchemaProps, error) {
	text, err := v1alpha1.CRDs.ReadFile("crds/" + v1alpha1.Group + "_" + k.Plural + ".yaml")
	if err != nil {
		return nil, err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		return nil, err
	}
	if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Schema == nil ||
		crd.Spec.Versions[0].Schema.OpenAPIV3Schema == nil {
		return nil, fmt.Errorf("the CRD does not have exactly one version with a schema")
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema, nil
}
