"""Chat templates: written as transformers writes them, in a process of their own where they are not the bundled model's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from vlm_analysis.guard.child import ChildError
from vlm_analysis.models import templates
from vlm_analysis.models.templates import filled

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
QUESTION = [
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "zwei <b> & 'drei'\n\té?"}],
    }
]
TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "forty-two"}]},
]
TEMPLATES = {
    "qwen": "{% set count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content %}"
    "{% set count.value = count.value + 1 %}{% if add_vision_id %}Picture {{ count.value }}: {% endif %}<|image_pad|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama": "{{- bos_token }}\n{%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n"
    "{%- for message in messages %}\n    {{- '<|start|>' + message['role'] + '<|end|>\n\n' }}\n"
    "    {%- if message['content'] is string %}\n        {{- message['content'] }}\n    {%- else %}\n"
    "        {%- for content in message['content'] %}\n            {%- if content['type'] == 'image' %}\n"
    "                {{- '<|image|>' }}\n            {%- elif content['type'] == 'text' %}\n"
    "                {{- content['text'] | trim }}\n            {%- endif %}\n        {%- endfor %}\n    {%- endif %}\n"
    "    {{- eos_token }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start|>assistant' }}\n{%- endif %}\n",
    "smolvlm": "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content[0].text }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content | tojson }}{% endif %}{% endfor %}",
    "loops": "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}{% continue %}{% endif %}"
    "{{ p.text }}{% break %}{% endfor %}{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{{ dict(a=1) | tojson(indent=2) }}",
    "blanks": "  {% if messages %}\n  a\n  {% endif %}\n\n  {#- no -#}  b\n",
    "macros": "{% macro say(text, end='.') -%}{{ text }}{{ end }}{%- endmacro %}{{ say(messages[0].role) }}{{ unknown }}"
    "{{ messages | length }}{{ 'x' if documents is none and tools is none }}",
    "dates": "{{ strftime_now('%Y') }}",
}

ENDLESS = "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% endfor %}{% endfor %}"


class Processor(SimpleNamespace):
    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        pytest.fail("a template of others runs in this process")


def processor(template: Any) -> Any:
    return Processor(chat_template=template, tokenizer=SimpleNamespace(special_tokens_map=SPECIAL))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [QUESTION, TURNS], ids=["question", "turns"])
@pytest.mark.parametrize("prompt", [True, False], ids=["prompt", "no prompt"])
def test_a_template_is_filled_as_transformers_fills_it(name: str, messages: list[Any], prompt: bool) -> None:
    (expected,), _ = render_jinja_template(
        [messages], chat_template=TEMPLATES[name], add_generation_prompt=prompt, **SPECIAL
    )
    written = filled(processor(TEMPLATES[name]), messages, open_answer=prompt)
    assert written == expected
    assert written


def test_the_bundled_template_is_filled_by_its_own_processor_and_elsewhere_alike(loaded: Any) -> None:
    own = loaded.processor
    expected = own.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert filled(own, QUESTION, open_answer=True) == expected
    other = processor(own.chat_template + "{# another #}")
    other.tokenizer = own.tokenizer
    assert filled(other, QUESTION, open_answer=True) == expected
    assert "zwei" in expected


def test_of_several_templates_the_default_is_taken_and_another_that_is_given() -> None:
    assert filled(processor({"rag": "b", "default": "a"}), QUESTION, open_answer=True) == "a"
    assert filled(processor("a"), QUESTION, "c", open_answer=True) == "c"
    with pytest.raises(ValueError, match="expected a chat template, got none"):
        filled(processor(None), QUESTION, open_answer=True)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
            "steps",
        ),
        ("{{ 'x' * 10**9 }}", "needed more than 256 MiB of memory"),
        (ENDLESS, "took longer than 0.5 s"),
        ("{{ ('x' * 10**6) * 30 }}", "wrote more than"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{{ raise_exception('system turns are not known') }}", "TemplateError: system turns are not known"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% set x = namespace(_a=1) %}", "SecurityError"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{% include 'etc/passwd' %}", "no loader|TypeError"),
        ("x" * (1 << 20) + "y", "1,048,577 characters"),
    ],
)
def test_a_template_that_fails_or_takes_too_much_is_named_and_the_next_one_is_filled(
    monkeypatch: pytest.MonkeyPatch, template: str, told: str
) -> None:
    seconds = 0.5 if template == ENDLESS else 120
    monkeypatch.setattr(templates._child(), "bounds", templates.Bounds(seconds, 256 << 20, 16 << 20))
    with pytest.raises(ChildError, match=told):
        filled(processor(template), QUESTION, open_answer=True)
    monkeypatch.undo()
    assert filled(processor("{{ messages | length }}"), QUESTION, open_answer=True) == "1"


def test_a_template_that_went_beyond_a_bound_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates._child(), "bounds", templates.Bounds(0.1, 256 << 20, 16 << 20))
    asked = processor(ENDLESS + "{# again #}")
    with pytest.raises(ChildError, match=r"took longer than 0\.1 s"):
        filled(asked, QUESTION, open_answer=True)
    monkeypatch.setattr(templates._child(), "ask", lambda question: pytest.fail("it was tried again"))
    with pytest.raises(ChildError, match=r"took longer than 0\.1 s"):
        filled(asked, QUESTION, open_answer=True)
