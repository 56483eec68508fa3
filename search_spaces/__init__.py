"""What may vary: parameters, spaces, and the spaces and studies that ship with the package."""

from search_spaces.json_values import SpaceError as SpaceError
from search_spaces.json_values import key as key
from search_spaces.json_values import plain as plain
from search_spaces.json_values import same as same
from search_spaces.library import default_space as default_space
from search_spaces.library import studies as studies
from search_spaces.library import study as study
from search_spaces.parameters import Choice as Choice
from search_spaces.parameters import Float as Float
from search_spaces.parameters import Int as Int
from search_spaces.parameters import parameter_from_dict as parameter_from_dict
from search_spaces.scale import full as full
from search_spaces.scale import merged as merged
from search_spaces.scale import scaled as scaled
from search_spaces.space import SearchSpace as SearchSpace
from search_spaces.yaml_text import read_yaml as read_yaml
from search_spaces.yaml_text import write_yaml as write_yaml
