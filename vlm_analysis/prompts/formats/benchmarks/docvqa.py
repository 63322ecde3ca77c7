"""DocVQA: questions on scanned documents, several of a document.

Read in lmms-eval's `tasks/docvqa/utils.py` and in code that reads lmms-lab/DocVQA: questionId, question, question_types (a list), image,
docId, ucsf_document_id, answers (all accepted; none in the test split). Questions on one document are one group.
"""

from vlm_analysis.prompts.cells import Cells
from vlm_analysis.prompts.formats.benchmarks.benchmark import WORD, Benchmark, first_of
from vlm_analysis.prompts.formats.benchmarks.infovqa import INFOVQA


def _task(cells: Cells) -> Cells:
    return {"task": first_of(cells, "question_types")}


DOCVQA = Benchmark(
    "docvqa",
    "DocVQA",
    (
        "questionid question image answers",
        "questionid question image docid",
        "questionid question image ucsf_document_id",
    ),
    {
        "id": "questionid",
        "group": "ucsf_document_id docid",
        "image": "image",
        "question": "question",
        "answers": "answers",
    },
    told=lambda sample: INFOVQA.matches(sample) is None,
    also=_task,
    suffix=WORD,
)
