import pickle

from onellm.errors import FileError, OneLLMError


def test_an_error_is_composed_of_its_fields():
    error = FileError(found="a.png: the file is empty", expected="a picture", advice="save it again")
    assert str(error) == "a.png: the file is empty; expected a picture; save it again."
    assert str(OneLLMError(found="nothing came", advice="send something")) == "nothing came; send something."


def test_a_whole_sentence_is_taken_as_it_is():
    error = OneLLMError("Nothing was asked; type a question.")
    assert str(error) == "Nothing was asked; type a question."
    assert (error.found, error.expected, error.advice) == ("Nothing was asked; type a question", "", "")


def test_fields_survive_another_process():
    error = pickle.loads(pickle.dumps(FileError(found="one", expected="two", advice="three")))
    assert str(error) == "one; expected two; three."
    assert (error.found, error.expected, error.advice) == ("one", "two", "three")
