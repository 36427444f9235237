package validators

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	_ "sigs.k8s.io/gateway-api/apis/v1" // the module that has the schemas
)

// gatewayAPI judges documents as the API server would that has the Gateway API's
// definitions of its standard channel.
type gatewayAPI map[string]*kind // by apiVersion and kind

type kind struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
}

func newGatewayAPI(t *testing.T) gatewayAPI {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/*s.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("the definitions are not there: %v, %v", files, err)
	}
	api := gatewayAPI{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(text, &crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, v := range crd.Spec.Versions {
			api[crd.Spec.Group+"/"+v.Name+" "+crd.Spec.Names.Kind] = newKind(t, v.Schema)
		}
	}
	return api
}

func newKind(t *testing.T, s *apiextensionsv1.CustomResourceValidation) *kind {
	t.Helper()
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(s.OpenAPIV3Schema, &internal, nil); err != nil {
		t.Fatal(err)
	}
	structural, err := schema.NewStructural(&internal)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		t.Fatal(err)
	}
	return &kind{structural, validator}
}

// check validates a file of documents and returns what is wrong with them.
func (api gatewayAPI) check(text string) []string {
	var wrong []string
	seen := map[string]bool{}
	for i, document := range strings.Split(text, "\n---\n") {
		var object map[string]any
		text, err := yaml.YAMLToJSONStrict([]byte(document))
		if err == nil {
			err = json.Unmarshal(text, &object) // numbers as the API server reads them
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("document %d: %v", i+1, err))
			continue
		}
		name, _, err := objectmeta.GetObjectMeta(object, false)
		if err != nil || name == nil || name.Name == "" {
			wrong = append(wrong, fmt.Sprintf("document %d: it has no name (%v)", i+1, err))
			continue
		}
		id := fmt.Sprintf("%v %v %s", object["apiVersion"], object["kind"], name.Name)
		if seen[id] {
			wrong = append(wrong, id+": there are two of it")
		}
		seen[id] = true
		for _, e := range apivalidation.NameIsDNSSubdomain(name.Name, false) {
			wrong = append(wrong, id+": "+e)
		}
		for _, e := range api.object(object, []byte(document)) {
			wrong = append(wrong, id+": "+e)
		}
	}
	return wrong
}

// object goes the way of an object that is created.
func (api gatewayAPI) object(object map[string]any, document []byte) []string {
	k := api[fmt.Sprintf("%v %v", object["apiVersion"], object["kind"])]
	if k == nil {
		return builtIn(object, document)
	}
	var wrong []string
	unknown := schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	for _, path := range pruning.PruneWithOptions(object, k.structural, true, unknown) {
		wrong = append(wrong, "unknown field "+path)
	}
	if err := objectmeta.Coerce(nil, object, k.structural, true, false); err != nil {
		wrong = append(wrong, err.Error())
	}
	defaulting.Default(object, k.structural)
	var list field.ErrorList
	list = append(list, objectmeta.Validate(context.Background(), nil, object, k.structural, true)...)
	list = append(list, validation.ValidateCustomResource(nil, object, k.validator)...)
	list = append(list, listtype.ValidateListSetsAndMaps(nil, k.structural, object)...)
	if rules := cel.NewValidator(k.structural, true, math.MaxInt64); rules != nil {
		broken, _ := rules.Validate(context.Background(), nil, k.structural, object, nil, math.MaxInt64)
		list = append(list, broken...)
	}
	for _, err := range list {
		wrong = append(wrong, err.Error())
	}
	return wrong
}

// builtIn reads the kinds that every cluster has: they need no definition.
func builtIn(object map[string]any, document []byte) []string {
	var into any
	switch id := fmt.Sprintf("%v %v", object["apiVersion"], object["kind"]); id {
	case "v1 Service":
		into = &corev1.Service{}
	case "discovery.k8s.io/v1 EndpointSlice":
		into = &discoveryv1.EndpointSlice{}
	default:
		return []string{"nobody knows this kind"}
	}
	if err := yaml.UnmarshalStrict(document, into); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// TestGatewaySchema has the judge find what is wrong, for one that finds nothing
// would be content with everything.
func TestGatewaySchema(t *testing.T) {
	api := newGatewayAPI(t)
	const gateway = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: web
spec:
  gatewayClassName: web
  listeners:
  - name: a
    port: 80
    protocol: HTTP
`
	const route = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
spec:
  rules:
  - filters:
    - type: RequestRedirect
      requestRedirect:
        statusCode: 301
`
	for _, c := range []struct{ text, wrong string }{
		{gateway, ""},
		{route, ""},
		{gateway + "    hostnames: [x]\n", "unknown field"},
		{gateway + "    tls: {mode: Terminate}\n", "tls must not be specified for protocols"},
		{gateway + "  - name: a\n    port: 81\n    protocol: HTTP\n", "Duplicate value"},
		{strings.Replace(gateway, "name: web", "name: Web_", 1), "lower case"},
		{strings.Replace(gateway, "port: 80", "port: 99999", 1), "65535"},
		{strings.Replace(route, "301", "418", 1), "Unsupported value"},
		{route + "    backendRefs:\n    - name: a\n      port: 80\n", "RequestRedirect filter must not be used together with backendRefs"},
		{"apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  prots: []\n", "unknown field"},
		{gateway + "---\n" + gateway, "two of it"},
	} {
		got := strings.Join(api.check(c.text), "\n")
		if c.wrong == "" && got != "" || !strings.Contains(got, c.wrong) {
			t.Errorf("want %q, got %q of\n%s", c.wrong, got, c.text)
		}
	}
}
